"""The architectures' tables: spelled as the format spells them, and the same in both directions."""

import ast

import gguf
import pytest
import torch
from torch.testing import assert_close

from tests.models.classes import ARCHITECTURES, CLASSES
from tests.models.tiny import CASES, counterpart, reference
from tests.support import ROOT
from torchgguf.models.core.weight_map import Scaling
from torchgguf.nn.slots import slots

SOURCE = ROOT / "src" / "torchgguf"
NAMES = {name for a in ARCHITECTURES for name in (a.gguf, *a.other_ggufs, a.config_class.model_type)}


# A single head of keys in a group, or of values: rows are in the same order on both sides.
ONE_GROUP = ("falcon", "qwen35-tied-odd-heads")


@pytest.mark.parametrize("name", CASES)
def test_every_parameter_has_one_name_on_each_side(name):
    model = counterpart(reference(CASES[name]))
    weights, tied = model.architecture.weights, model.config.tie_word_embeddings
    layers = model.named_modules()
    names = [model.base_name(f"{path}.{slot.name}") for path, layer in layers for slot in slots(layer)]
    names = [name for name in names if not (tied and name == "lm_head.weight")]
    there = [weights.to_gguf(name, model.config)[0] for name in names]
    assert len(set(there)) == len(there)
    assert [weights.to_hf(name, model.config)[0] for name in there] == names
    for parameter, value in model.named_parameters():
        if (target := weights.to_gguf(model.base_name(parameter), model.config)) is not None and (
            row := target[1]
        ).transform is not None:
            changed = row.transform.to_gguf(value.detach(), model.config)
            if isinstance(row.transform, Scaling):  # which rounds
                assert_close(row.transform.to_hf(changed, model.config), value.detach())
                continue
            assert torch.equal(changed, value) == (name in ONE_GROUP)
            assert torch.equal(row.transform.to_hf(changed, model.config), value)


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda a: a.config_class.model_type)
def test_names_are_those_of_the_format(architecture):
    names = (architecture.gguf, *architecture.other_ggufs)
    archs = [key for key, value in gguf.MODEL_ARCH_NAMES.items() if value in names]
    # The names of newer architectures are those of Llama.
    kinds = {kind for arch in archs or [gguf.MODEL_ARCH.LLAMA] for kind in gguf.MODEL_TENSORS[arch]}
    # llama.cpp's own copy of the package knows that these have blocks that predict further tokens.
    if architecture.gguf in ("deepseek2", "qwen35", "qwen35moe", "qwen3next", "nemotron_h"):
        kinds |= {kind for kind in gguf.TENSOR_NAMES if kind.name.startswith(("NEXTN_", "ATTN_POST_NORM"))}
    if architecture.gguf == "lfm2moe":  # llama.cpp reads a head that is not tied
        kinds.add(gguf.MODEL_TENSOR.OUTPUT)
    allowed = {gguf.TENSOR_NAMES[kind].replace("{bid}", "{}") for kind in kinds}
    for one in architecture.joined:
        assert one.name in allowed
        allowed |= {*one.parts}
    # Of parameters that belong to no module.
    allowed |= {f"{name}.{kind}" for name in allowed for kind in ("weight", "bias", "scale", "{}")}
    assert {row.gguf for row in architecture.weights.rows} <= allowed
    keys = {
        value.removeprefix("{arch}.")
        for group in vars(gguf.Keys).values()
        for name, value in (vars(group).items() if isinstance(group, type) else ())
        if isinstance(value, str) and not name.startswith("_")
    }
    own = {key for rule in architecture.rules for key in rule.keys}
    # The last is in the format's description, the others in llama.cpp's list (llama-arch.cpp).
    newer = {"attention.recurrent_layers", "num_loops", "rope.scale_linear", "skip_loop_final_norm"}
    newer |= {"hidden_activation", "classifier.pooling_type"}
    assert own - keys <= {*newer, "tensor_data_layout"}


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_other_file_asks_which_architecture_it_has(path):
    """Only an architecture's own file knows its name, and the registry that says which file it is."""
    own = {*(SOURCE / "models" / "architectures").iterdir(), SOURCE / "models" / "registry.py"}
    # Files of architectures that have no model here are packed too, and llama-quantize tells some apart.
    own.add(SOURCE / "packing" / "variants.py")
    # `llama` is a kind of tokenizer as well, and what is mended in vLLM is its GPT-2.
    elsewhere = (SOURCE / "tokenization", SOURCE / "vllm_plugin")
    if path in own or any(path.is_relative_to(folder) for folder in elsewhere):
        return
    tree = ast.parse(path.read_text())
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert not texts & NAMES
    asked = [
        ast.unparse(node)
        for node in ast.walk(tree)
        if (isinstance(node, ast.Compare) and "model_type" in ast.unparse(node))
        or (isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass"))
    ]
    classes = [found.__name__ for found in CLASSES]
    assert not [text for text in asked if "model_type ==" in text or any(name in text for name in classes)]
