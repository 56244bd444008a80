"""Adapters that are broken, of other models, or beyond a format: one line names it, and nothing changes."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conversion.test_faults import contents, files_of_at_most
from tests.models.tiny import CASES, counterpart, reference
from tests.training.adapting import IDS, adapted
from torchgguf import AutoModelForCausalLM, GGUFError, open_gguf, write_gguf
from torchgguf.models.io.limits import CheckpointError
from torchgguf.training.adapters import AdapterError, convert_adapter, load_adapter, save_adapter
from torchgguf.training.lora import adapter_settings
from torchgguf.training.merging import merge_into_gguf

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
Q = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A model, and an adapter in both forms."""
    place = tmp_path_factory.mktemp("faults")
    counterpart(reference(CASES["llama"])).save_gguf(place / "model.gguf")
    adapted(reference(CASES["llama"]), target_modules=["q_proj"]).save_pretrained(place / "adapter")
    convert_adapter(place / "adapter", place / "adapter.gguf", place / "model.gguf")
    return place


def changed(place: Path, folder: Path, config: dict | None = None, tensors: dict | None = None) -> Path:
    """A copy of PEFT's folder with other values; None removes a tensor."""
    shutil.copytree(place / "adapter", folder)
    values = json.loads((folder / CONFIG).read_text()) | (config or {})
    (folder / CONFIG).write_text(json.dumps(values))
    every = load_file(folder / WEIGHTS) | (tensors or {})
    save_file({name: tensor for name, tensor in every.items() if tensor is not None}, folder / WEIGHTS)
    return folder


@pytest.mark.parametrize(
    ("config", "tensors", "message"),
    [
        ({"peft_type": "IA3"}, {}, "peft_type is 'IA3'"),
        ({"use_dora": True}, {}, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, {}, "modules_to_save: lm_head"),
        ({"bias": "all"}, {}, "bias='all' is unsupported"),
        ({"use_qalora": True}, {}, "use_qalora=True is unsupported"),
        ({"r": 0}, {}, "r must be at least 1"),
        ({}, {Q.format("B"): None}, r"lacks lora_B of model\.layers\.0\.self_attn\.q_proj"),
        (
            {},
            {Q.format("A"): torch.zeros(4, 32)},
            r"q_proj\.weight of shape \(64, 32\), .* has shape \(64, 64\)",
        ),
        ({}, {Q.format("A"): torch.zeros(3, 64)}, "lora_A has rank 3, lora_B 4"),
        ({}, {"base_model.model.model.x.lora_A.weight": torch.zeros(4, 64)}, r"lacks lora_B of model\.x"),
        ({}, {"base_model.model.lm_head.bias": torch.zeros(4)}, r"lm_head\.bias is not a matrix of LoRA"),
    ],
    ids=str,
)
def test_what_gguf_does_not_support(place, tmp_path, config, tensors, message):
    folder = changed(place, tmp_path / "adapter", config, tensors)
    for convert in (
        lambda: convert_adapter(folder, tmp_path / "new.gguf", place / "model.gguf"),
        lambda: merge_into_gguf(place / "model.gguf", folder, tmp_path / "new.gguf"),
    ):
        with pytest.raises((AdapterError, CheckpointError), match=message) as error:
            convert()
        assert "\n" not in str(error.value)
    assert not (tmp_path / "new.gguf").exists()


@pytest.mark.parametrize(
    ("metadata", "tensors", "message"),
    [
        ({"general.type": "model"}, {}, "is not an adapter"),
        ({"adapter.type": "control"}, {}, r"adapter\.type 'control' is unsupported"),
        ({"adapter.lora.alpha": "6"}, {}, r"adapter\.lora\.alpha must be a number"),
        ({"general.architecture": "qwen2"}, {}, "belongs to a qwen2 model"),
        ({}, {"blk.0.attn_q.weight.lora_b": None}, r"lacks the tensor blk\.0\.attn_q\.weight\.lora_b"),
        ({}, {"blk.0.attn_q.weight.lora_b": torch.ones(64, 3)}, "must be low-rank"),
        ({}, {"blk.0.attn_q.weight.lora_b": torch.full((64, 4), torch.nan)}, "not finite"),
        ({}, {"blk.0.attn_q.weight.lora_b": torch.ones(32, 4)}, r"shape \(32, 64\), .* has shape \(64, 64\)"),
        ({}, {"blk.0.attn_norm.weight": torch.ones(64)}, r"blk\.0\.attn_norm\.weight is neither"),
        (
            {},
            {
                "blk.7.attn_q.weight.lora_a": torch.ones(4, 64),
                "blk.7.attn_q.weight.lora_b": torch.ones(64, 4),
            },
            r"no tensor blk\.7\.attn_q\.weight",
        ),
    ],
    ids=str,
)
def test_broken_files(place, tmp_path, metadata, tensors, message):
    with open_gguf(place / "adapter.gguf") as file:
        every = {name: file[name].clone() for name in file} | tensors
        stated = file.metadata.copy()
    for key, value in metadata.items():
        del stated[key]
        stated[key] = value
    every = {name: tensor for name, tensor in every.items() if tensor is not None}
    write_gguf(tmp_path / "broken.gguf", stated, every)
    model = AutoModelForCausalLM.from_pretrained(place / "model.gguf")
    before = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    for use in (
        lambda: load_adapter(model, tmp_path / "broken.gguf"),
        lambda: merge_into_gguf(place / "model.gguf", tmp_path / "broken.gguf", tmp_path / "new.gguf"),
        lambda: convert_adapter(tmp_path / "broken.gguf", tmp_path / "folder", place / "model.gguf"),
    ):
        with pytest.raises(AdapterError, match=message) as error:
            use()
        assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["broken.gguf"]
    assert not adapter_settings(model)
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == before


def test_truncated_files(place, tmp_path):
    for name in ("adapter.gguf", f"adapter/{WEIGHTS}", f"adapter/{CONFIG}"):
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        shutil.copytree(place, tmp_path / "copy")
        path = tmp_path / "copy" / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises((GGUFError, CheckpointError)) as error:
            merge_into_gguf(
                place / "model.gguf", tmp_path / "copy" / name.partition("/")[0], tmp_path / "new.gguf"
            )
        assert "\n" not in str(error.value)


def test_a_full_disk_changes_nothing(place, tmp_path):
    shutil.copytree(place, tmp_path / "copy")
    work = tmp_path / "copy"
    model = AutoModelForCausalLM.from_pretrained(work / "model.gguf")
    load_adapter(model, work / "adapter")
    (work / "merged.gguf").write_text("old")
    before = contents(work)
    with files_of_at_most(2048):
        for use in (
            lambda: merge_into_gguf(work / "model.gguf", work / "adapter.gguf", work / "merged.gguf"),
            lambda: convert_adapter(work / "adapter", work / "adapter.gguf", work / "model.gguf"),
            lambda: save_adapter(model, work / "adapter.gguf"),
            lambda: save_adapter(model, work / "adapter"),
        ):
            with pytest.raises((GGUFError, OSError)):
                use()
    assert contents(work) == before


@torch.no_grad()
def test_rslora_and_patterns_are_folded(tmp_path):
    """GGUF has one alpha for all: what it gives is what PEFT computes."""
    counterpart(reference(CASES["llama"])).save_gguf(tmp_path / "model.gguf")
    settings = {
        "target_modules": ["q_proj", "v_proj"],
        "use_rslora": True,
        "rank_pattern": {"v_proj": 2},
        "alpha_pattern": {"layers.1.self_attn.q_proj": 3},
    }
    peft = adapted(reference(CASES["llama"]), **settings)
    peft.save_pretrained(tmp_path / "adapter")
    convert_adapter(tmp_path / "adapter", tmp_path / "adapter.gguf", tmp_path / "model.gguf")
    for place in ("adapter", "adapter.gguf"):
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "model.gguf")
        load_adapter(model, tmp_path / place)
        torch.testing.assert_close(model(IDS).logits, peft(input_ids=IDS).logits, atol=2e-4, rtol=0)


def test_a_head_that_is_tied(tmp_path):
    """Its change would have no tensor in a file, and that of the embedding would change the head."""
    counterpart(reference(CASES["llama-tied"])).save_gguf(tmp_path / "model.gguf")
    for target, message in (("lm_head", "lm_head shares the weights"), ("embed_tokens", "for lookups only")):
        peft = adapted(reference(CASES["llama-tied"]), target_modules=[target])
        peft.save_pretrained(tmp_path / target)
        with pytest.raises(AdapterError, match=message):
            merge_into_gguf(tmp_path / "model.gguf", tmp_path / target, tmp_path / "new.gguf")
    assert not (tmp_path / "new.gguf").exists()
