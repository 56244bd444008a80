"""Blocks that predict further tokens: kept in both kinds of files, not run."""

import re
from pathlib import Path

import gguf
import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from tests.models.files import edited, packed
from tests.models.folders import change_tensors
from tests.models.tiny import CASES, Case, reference
from tests.peers.llama_cpp import convert_folders, greedy_text
from tests.peers.vocabularies import add_tokenizer
from tests.support import LLAMA_CPP
from torchgguf import convert_to_checkpoint, convert_to_gguf, save_gguf
from torchgguf.container import GGUFError, open_gguf
from torchgguf.models import AutoModelForCausalLM
from torchgguf.tokenization import AutoTokenizer

pytestmark = pytest.mark.skipif(
    not LLAMA_CPP.exists(), reason="llama.cpp's converter is not there: python scripts/fetch_models.py"
)
CASE = Case("Glm4Moe", {**CASES["glm4moe"].config, "num_nextn_predict_layers": 1})
EXTRA = ("eh_proj", "embed_tokens", "enorm", "hnorm", "shared_head.head", "shared_head.norm")
NEXT = "model.layers.3."


def add_block(tensors: dict[str, torch.Tensor]) -> None:
    """Add a fourth layer, with what blocks of this kind have besides."""
    own = {name.replace("layers.2.", "layers.3."): x for name, x in tensors.items() if "layers.2." in name}
    shapes = {"eh_proj": (64, 128), "embed_tokens": (400, 64), "shared_head.head": (400, 64)}
    own |= {f"{NEXT}{name}.weight": torch.empty(shapes.get(name, (64,))) for name in EXTRA}
    generator = torch.Generator().manual_seed(1)
    tensors |= {name: torch.randn(x.shape, generator=generator) for name, x in own.items()}


@pytest.fixture(scope="module")
def model():
    return reference(CASE)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory) -> Path:
    """A checkpoint as released ones are, with the block."""
    folder = tmp_path_factory.mktemp("nextn") / "with-block"
    model.save_pretrained(folder)
    add_tokenizer(folder, model.config.model_type)
    change_tensors(folder, add_block)
    return folder


@pytest.fixture(scope="module")
def file(folder) -> Path:
    """The file that llama.cpp's converter makes of it."""
    path = folder.with_suffix(".gguf")
    convert_folders([(folder, path, "f32", "glm4")])
    return path


@pytest.fixture(scope="module")
def packed_file(file) -> Path:
    """The same with a packed matrix in the block."""
    with open_gguf(file) as opened:
        tensors = {"blk.3.ffn_up_exps.weight": packed(opened["blk.3.ffn_up_exps.weight"], "Q8_0")}
    return edited(file, file.with_name("packed.gguf"), tensors=tensors)


def test_the_block_does_not_run(model, file):
    ours = AutoModelForCausalLM.from_pretrained(file)
    ids = torch.randint(0, 400, (2, 24), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert_close(ours(ids).logits, model(ids).logits, atol=1e-4, rtol=0)
    assert (ours.config.num_hidden_layers, ours.config.num_nextn_predict_layers) == (3, 1)
    assert ours.state_dict().keys() == model.state_dict().keys()
    prompt = "The licenses for most software"
    tokenizer = AutoTokenizer.from_pretrained(file)
    ids = tokenizer(prompt, return_tensors="pt")
    new = ours.generate(**ids, max_new_tokens=8, do_sample=False)[0, ids.input_ids.shape[1] :]
    assert tokenizer.decode(new, skip_special_tokens=True) == greedy_text(file, prompt, tokens=8)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("which", ["file", "packed_file"])
def test_written_back_it_is_the_same_file(which, plain, request, tmp_path):
    original = request.getfixturevalue(which)
    model = AutoModelForCausalLM.from_pretrained(original, dequantize=plain)
    model.save_gguf(tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == original.read_bytes()


def test_through_transformers_it_is_the_same_file(file, tmp_path):
    save_gguf(AutoModelForCausalLM.from_pretrained(file).to_transformers(), tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == file.read_bytes()


@pytest.mark.parametrize("at_once", [True, False])
def test_from_a_folder_it_has_the_tensors_of_the_converter(folder, file, at_once, tmp_path):
    path = tmp_path / "ours.gguf"
    if at_once:
        AutoModelForCausalLM.from_pretrained(folder).save_gguf(path)
    else:
        convert_to_gguf(folder, path, pre="glm4")
    ours, theirs = ({x.name: x for x in gguf.GGUFReader(each).tensors} for each in (path, file))
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        assert ours[name].data.tobytes() == expected.data.tobytes(), name
    with open_gguf(path) as written:
        assert written.metadata["glm4moe.block_count"] == 4
        assert written.metadata["glm4moe.nextn_predict_layers"] == 1


@pytest.mark.parametrize("at_once", [True, False])
def test_as_a_folder_again(folder, file, at_once, tmp_path):
    if at_once:
        AutoModelForCausalLM.from_pretrained(file).save_pretrained(tmp_path)
    else:
        convert_to_checkpoint(file, tmp_path)
    ours, theirs = load_file(tmp_path / "model.safetensors"), load_file(folder / "model.safetensors")
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        assert torch.equal(ours[name], expected), name


def test_packed_experts_of_the_block_are_unpacked_in_a_folder(packed_file, tmp_path):
    AutoModelForCausalLM.from_pretrained(packed_file).save_pretrained(tmp_path)
    with open_gguf(packed_file) as file:
        blocks = file["blk.3.ffn_up_exps.weight"].numpy()
    expected = torch.from_numpy(gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType.Q8_0))
    ours = load_file(tmp_path / "model.safetensors")
    for expert, matrix in enumerate(expected):
        assert torch.equal(ours[f"{NEXT}mlp.experts.{expert}.up_proj.weight"], matrix)


def test_a_config_without_the_block_leaves_it_out(file, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(file)
    model.config.num_nextn_predict_layers = 0
    model.save_gguf(tmp_path / "without.gguf")
    with open_gguf(tmp_path / "without.gguf") as written:
        assert not [name for name in written.tensors if name.startswith("blk.3.")]
        assert written.metadata["glm4moe.block_count"] == 3
        assert written.metadata["glm4moe.nextn_predict_layers"] == 0


@pytest.mark.parametrize("count", [-1, 4])
def test_a_wrong_number_of_blocks_is_refused(file, count, tmp_path):
    wrong = edited(file, tmp_path / "wrong.gguf", {"glm4moe.nextn_predict_layers": count})
    text = f"nextn_predict_layers must be from 0 to 3, below block_count, got {count}"
    with pytest.raises(GGUFError, match=re.escape(text)):
        AutoModelForCausalLM.from_pretrained(wrong)


def test_a_tensor_that_blocks_do_not_have_is_refused(file, tmp_path):
    wrong = edited(file, tmp_path / "wrong.gguf", tensors={"blk.3.ffn_odd.weight": torch.zeros(4)})
    with pytest.raises(GGUFError, match=r"unused tensors: blk\.3\.ffn_odd\.weight"):
        AutoModelForCausalLM.from_pretrained(wrong)
