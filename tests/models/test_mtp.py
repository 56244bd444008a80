"""Blocks for multi-token prediction beside the gated delta rule, in checkpoints as they are released."""

from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch.testing import assert_close

from tests.models.folders import change_config, change_tensors
from tests.models.tiny import CASES, reference
from tests.peers.llama_cpp import convert_folders, greedy_text
from tests.peers.vocabularies import BYTE_LEVEL, add_tokenizer
from tests.support import LLAMA_CPP
from torchgguf import AutoConfig, convert_to_gguf
from torchgguf.container import open_gguf
from torchgguf.models import AutoModelForCausalLM
from torchgguf.tokenization import AutoTokenizer

pytestmark = pytest.mark.skipif(
    not LLAMA_CPP.exists(), reason="llama.cpp's converter is not there: python scripts/fetch_models.py"
)
NAMES = ("qwen35", "qwen35moe", "qwen3next")
# Models that read images, too, by the names of their classes.
WHOLE = {"qwen35": "Qwen3_5", "qwen35moe": "Qwen3_5Moe"}
VISION = {
    "depth": 1,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_heads": 2,
    "out_hidden_size": 64,
    "num_position_embeddings": 16,
}
OWN = {"fc": (64, 128), "norm": (64,), "pre_fc_norm_embedding": (64,), "pre_fc_norm_hidden": (64,)}


def add_block(tensors: dict[str, torch.Tensor]) -> None:
    """Add a block, whose layer is as those with attention; experts are stored as in the other layers."""
    (start,) = {name.partition("layers.3.")[0] for name in tensors if "layers.3." in name}
    layer = f"{start}layers.3."
    shapes = {f"mtp.{name}.weight": shape for name, shape in OWN.items()}
    shapes |= {
        name.replace(layer, "mtp.layers.0."): x.shape for name, x in tensors.items() if name.startswith(layer)
    }
    generator = torch.Generator().manual_seed(1)
    tensors |= {name: torch.randn(shape, generator=generator) * 0.1 for name, shape in shapes.items()}


def whole(name: str, text: Any) -> Any:
    """The model around a text part, with its weights."""
    kind = WHOLE[name]
    config = getattr(transformers, f"{kind}Config")(
        text_config=text.config.to_dict() | {"mtp_num_hidden_layers": 1}, vision_config=VISION
    )
    model = getattr(transformers, f"{kind}ForConditionalGeneration")(config)
    model.model.language_model.load_state_dict(text.model.state_dict())
    model.lm_head.load_state_dict(text.lm_head.state_dict())
    return model


@pytest.fixture(scope="module", params=NAMES)
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def original(name):
    return reference(CASES[name])


@pytest.fixture(scope="module")
def folder(name, original, tmp_path_factory) -> Path:
    """A checkpoint as released ones are."""
    folder = tmp_path_factory.mktemp("mtp") / name
    (whole(name, original) if name in WHOLE else original).save_pretrained(folder)
    add_tokenizer(folder, original.config.model_type)
    change_tensors(folder, add_block)
    return folder


@pytest.fixture(scope="module")
def file(folder, original) -> Path:
    """The file that llama.cpp's converter makes of it."""
    path = folder.with_suffix(".gguf")
    convert_folders([(folder, path, "f32", BYTE_LEVEL[original.config.model_type])])
    return path


@torch.no_grad()
def test_the_model_is_that_of_the_text(name, original, folder, file):
    ids = torch.randint(0, 400, (1, 24), generator=torch.Generator().manual_seed(0))
    for place in (folder, file):
        ours = AutoModelForCausalLM.from_pretrained(place)
        assert type(ours).__name__ == type(original).__name__
        assert ours.config.mtp_num_hidden_layers == 1
        assert ours.state_dict().keys() == original.state_dict().keys()
        assert_close(ours(ids).logits, original(ids).logits, atol=1e-4, rtol=0)
    assert AutoConfig.from_pretrained(folder).model_type == original.config.model_type
    prompt = "The licenses for most software"
    tokenizer = AutoTokenizer.from_pretrained(file)
    ids = tokenizer(prompt, return_tensors="pt")
    new = ours.generate(**ids, max_new_tokens=8, do_sample=False)[0, ids.input_ids.shape[1] :]
    assert tokenizer.decode(new, skip_special_tokens=True) == greedy_text(file, prompt, tokens=8)


@pytest.mark.parametrize("plain", [False, True])
def test_written_back_it_is_the_same_file(file, plain, tmp_path):
    AutoModelForCausalLM.from_pretrained(file, dequantize=plain).save_gguf(tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == file.read_bytes()


@pytest.mark.parametrize("at_once", [True, False])
def test_from_a_folder_it_has_the_tensors_of_the_converter(folder, file, original, at_once, tmp_path):
    path = tmp_path / "ours.gguf"
    if at_once:
        AutoModelForCausalLM.from_pretrained(folder).save_gguf(path)
    else:
        convert_to_gguf(folder, path, pre=BYTE_LEVEL[original.config.model_type])
    ours, theirs = ({x.name: x for x in gguf.GGUFReader(each).tensors} for each in (path, file))
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        assert ours[name].data.tobytes() == expected.data.tobytes(), name
    with open_gguf(path) as actual, open_gguf(file) as wanted:
        for key in ("block_count", "nextn_predict_layers", "attention.recurrent_layers"):
            (key,) = [each for each in wanted.metadata if each.endswith(f".{key}")]
            assert actual.metadata[key] == wanted.metadata[key]


def test_as_a_folder_again(folder, file, original, tmp_path):
    """Of the block, experts are stored one by one; the rest as it was, but for what a sum has rounded."""
    AutoModelForCausalLM.from_pretrained(file).save_pretrained(tmp_path)
    ours, theirs = load_file(tmp_path / "model.safetensors"), load_file(folder / "model.safetensors")
    for name, expected in theirs.items():
        if name.startswith("mtp.") and ".experts." not in name:
            assert_close(ours[name], expected, atol=1e-6, rtol=0)
    blocks = {name for name in ours if name.startswith("mtp.")}
    assert (
        len(
            {name.partition("experts.")[0] for name in blocks}
            ^ {name.partition("experts.")[0] for name in theirs if name.startswith("mtp.")}
        )
        == 0
    )
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert again.config.mtp_num_hidden_layers == 1
    loaded = type(original).from_pretrained(tmp_path)
    ids = torch.arange(20)[None]
    with torch.no_grad():
        assert_close(again(ids).logits, loaded(ids).logits, atol=1e-4, rtol=0)


def test_a_config_that_counts_blocks_which_are_not_there(original, tmp_path):
    """As transformers leaves it behind: the file does not promise what it does not have."""
    original.save_pretrained(tmp_path)
    change_config(tmp_path, mtp_num_hidden_layers=1)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    model.save_gguf(tmp_path / "without.gguf")
    with open_gguf(tmp_path / "without.gguf") as written:
        assert not [key for key in written.metadata if key.endswith("nextn_predict_layers")]
        (count,) = [value for key, value in written.metadata.items() if key.endswith(".block_count")]
    assert count == original.config.num_hidden_layers
