"""What is written says what the model is; what was not changed is written as it was."""

import gguf
import numpy as np
import pytest
import torch
from torch.testing import assert_close

from tests.models.files import edited, packed
from tests.models.tiny import CASES, LONGROPE, counterpart, reference
from torchgguf.container import open_gguf
from torchgguf.models import AutoConfig, AutoModel, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from torchgguf.packing import ImportanceMatrix, PackingReport, Quantization
from torchgguf.packing.column_statistics import Activations


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A file with tensors of many types, and a tied Q8_0 embedding."""
    folder = tmp_path_factory.mktemp("mixed")
    model = counterpart(reference(CASES["llama-tied"]))
    model.save_gguf(folder / "plain.gguf", metadata={"general.name": "Mixed"})
    with open_gguf(folder / "plain.gguf") as file:
        types = {
            "token_embd.weight": "Q8_0",
            "blk.0.attn_q.weight": "Q4_0",
            "blk.0.attn_k.weight": "Q5_1",
            "blk.0.ffn_up.weight": "Q4_1",
            "blk.1.attn_q.weight": "F16",
            "blk.1.attn_k.weight": "BF16",
        }
        tensors = {name: packed(file[name], kind) for name, kind in types.items()}
        tensors["blk.1.attn_norm.weight"] = file["blk.1.attn_norm.weight"].half()
        return edited(folder / "plain.gguf", folder / "mixed.gguf", tensors=tensors)


def contents(path) -> dict[str, tuple[str, bytes]]:
    """Type and bytes of every tensor, as gguf-py reads them."""
    return {t.name: (t.tensor_type.name, t.data.tobytes()) for t in gguf.GGUFReader(path).tensors}


def values(path) -> dict:
    fields = gguf.GGUFReader(path).fields
    return {key: field.contents() for key, field in fields.items() if not key.startswith("GGUF.")}


def test_unchanged(mixed, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(mixed)
    model.save_gguf(tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == mixed.read_bytes()


def test_over_the_file_it_came_from(mixed, tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(mixed.read_bytes())
    model = AutoModelForCausalLM.from_pretrained(path)
    ids = torch.arange(12)[None]
    before = model(ids).logits
    model.save_gguf(path)
    assert path.read_bytes() == mixed.read_bytes()
    assert torch.equal(model(ids).logits, before)


def test_training_touches_only_what_it_trained(mixed, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(mixed)
    optimizer = torch.optim.SGD([model.model.layers[2].input_layernorm.weight], lr=0.1)
    ids = torch.arange(12)[None]
    model(ids, labels=ids).loss.backward()
    optimizer.step()
    model.save_gguf(tmp_path / "trained.gguf")
    before, after = contents(mixed), contents(tmp_path / "trained.gguf")
    assert [name for name in before if after[name] != before[name]] == ["blk.2.attn_norm.weight"]
    assert values(tmp_path / "trained.gguf") == values(mixed)
    written = np.frombuffer(after["blk.2.attn_norm.weight"][1], np.float32)
    assert np.array_equal(written, model.model.layers[2].input_layernorm.weight.detach().numpy())


def test_halves_stay_halves_until_training_fills_them(mixed, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(mixed, dequantize=True)
    norm = model.model.layers[1].input_layernorm.weight
    model.save_gguf(tmp_path / "a.gguf")
    with torch.no_grad():
        norm += 1e-6
    model.save_gguf(tmp_path / "b.gguf")
    types = [contents(tmp_path / name)["blk.1.attn_norm.weight"][0] for name in ("a.gguf", "b.gguf")]
    assert types == ["F16", "F32"]


@pytest.mark.parametrize(
    ("dtype", "matrix", "file_type"),
    [(torch.float32, "F32", 0), (torch.float16, "F16", 1), (torch.bfloat16, "BF16", 32)],
)
def test_unpacked(mixed, tmp_path, dtype, matrix, file_type):
    """Unpacked matrices have the type of their dtype; vectors llama.cpp wants in F32."""
    model = AutoModelForCausalLM.from_pretrained(mixed, dequantize=True, dtype=dtype)
    model.save_gguf(tmp_path / "plain.gguf")
    types = {name: kind for name, (kind, _) in contents(tmp_path / "plain.gguf").items()}
    assert (
        types["token_embd.weight"] == types["blk.0.attn_q.weight"] == types["blk.2.ffn_up.weight"] == matrix
    )
    assert types["output_norm.weight"] == "F32"
    assert values(tmp_path / "plain.gguf")["general.file_type"] == file_type
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "plain.gguf", dequantize=True, dtype=dtype)
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_unpacking_later(mixed):
    at_once = AutoModelForCausalLM.from_pretrained(mixed, dequantize=True, dtype=torch.bfloat16)
    later = AutoModelForCausalLM.from_pretrained(mixed, dtype=torch.bfloat16).dequantize()
    assert later.lm_head.weight is later.model.embed_tokens.weight
    for name, value in at_once.state_dict().items():
        assert torch.equal(later.state_dict()[name], value), name


def test_packing_to_blocks(mixed, tmp_path):
    """Matrices become what the gguf package makes of the same numbers; vectors stay as they are."""
    model = AutoModelForCausalLM.from_pretrained(mixed, dequantize=True)
    model.save_gguf(tmp_path / "out.gguf", quantization="Q8_0")
    original = model.model.layers[1].mlp.down_proj.weight.detach().numpy()
    expected = gguf.quants.quantize(original, gguf.GGMLQuantizationType.Q8_0)
    kind, data = contents(tmp_path / "out.gguf")["blk.1.ffn_down.weight"]
    assert kind == "Q8_0" and np.array_equal(np.frombuffer(data, np.uint8), expected.ravel())
    assert contents(tmp_path / "out.gguf")["output_norm.weight"][0] == "F32"


def types(path) -> dict[str, str]:
    return {name: kind for name, (kind, _) in contents(path).items()}


def test_recipes_choose_types(mixed, tmp_path):
    """Rows of 64 and 96 are no blocks of 256: llama-quantize takes Q5_0 in place of Q4_K, Q8_0 of Q6_K."""
    model = AutoModelForCausalLM.from_pretrained(mixed, dequantize=True)
    report = PackingReport()
    model.save_gguf(tmp_path / "out.gguf", quantization="q4_k", report=report)
    found = types(tmp_path / "out.gguf")
    assert values(tmp_path / "out.gguf")["general.file_type"] == gguf.LlamaFileType.MOSTLY_Q4_K_M
    assert found["blk.1.attn_q.weight"] == found["blk.0.attn_v.weight"] == "Q5_0"
    assert (
        found["token_embd.weight"] == found["blk.2.attn_v.weight"] == found["blk.2.ffn_down.weight"] == "Q8_0"
    )
    assert found["output_norm.weight"] == "F32" and found["blk.1.attn_norm.weight"] == "F16"
    assert {name: row.type.name for name, row in report.tensors.items()} == found
    assert report.tensors["blk.2.attn_v.weight"].wanted.name == "Q6_K"
    original, packed = (
        AutoModelForCausalLM.from_pretrained(p, dequantize=True) for p in (mixed, tmp_path / "out.gguf")
    )
    before, after = (m.model.layers[1].mlp.up_proj.weight for m in (original, packed))
    error = (after - before).norm() / before.norm()
    assert report.tensors["blk.1.ffn_up.weight"].error == pytest.approx(error.item(), rel=1e-5)


def test_a_type_without_a_recipe_is_that_of_all_matrices(mixed, tmp_path):
    """Where NVFP4's blocks of 64 do not divide rows, MXFP4 has the same numbers in blocks of 32."""
    model = AutoModelForCausalLM.from_pretrained(mixed, dequantize=True)
    model.save_gguf(tmp_path / "out.gguf", quantization="NVFP4")
    found = types(tmp_path / "out.gguf")
    assert {kind for name, kind in found.items() if "norm" not in name and "down" not in name} == {"NVFP4"}
    assert {kind for name, kind in found.items() if "down" in name} == {"MXFP4"}
    assert values(tmp_path / "out.gguf")["general.file_type"] == gguf.LlamaFileType.MOSTLY_NVFP4


def test_what_is_packed_is_packed_again_on_demand_only(mixed, tmp_path):
    path = tmp_path / "out.gguf"
    path.write_bytes(b"precious")
    model = AutoModelForCausalLM.from_pretrained(mixed)
    with pytest.raises(ValueError, match=r"'blk.0.attn_q.weight' is packed to Q4_0 already"):
        model.save_gguf(path, quantization="Q4_K_M")
    assert path.read_bytes() == b"precious"
    model.save_gguf(path, quantization=Quantization("Q8_0", allow_requantize=True))
    assert {kind for name, kind in types(path).items() if "norm" not in name} == {"Q8_0"}
    assert contents(path)["token_embd.weight"] == contents(mixed)["token_embd.weight"]


def test_unpacking_is_no_packing_again(mixed, tmp_path):
    path = tmp_path / "out.gguf"
    AutoModelForCausalLM.from_pretrained(mixed).save_gguf(path, quantization="F16")
    plain = AutoModelForCausalLM.from_pretrained(mixed, dequantize=True)
    again = AutoModelForCausalLM.from_pretrained(path, dequantize=True)
    assert types(path)["token_embd.weight"] == "F16"
    assert types(path)["output_norm.weight"] == "F32"
    for name, value in plain.state_dict().items():
        expected = value.half().float() if value.dim() == 2 else value
        assert torch.equal(again.state_dict()[name], expected), name


def test_importances(mixed, tmp_path):
    """Columns that matter more are packed with more care, and the file says whose importances they were."""
    model = AutoModelForCausalLM.from_pretrained(mixed, dequantize=True)
    sums = torch.ones(1, 64)
    sums[:, ::2] = 1e-4
    one = torch.ones(1, dtype=torch.int64)
    names = [f"blk.{i}.{name}.weight" for i in range(3) for name in ("ffn_up", "ffn_gate")]
    matrix = ImportanceMatrix({name: Activations(sums, one) for name in names}, ["corpus"], 7, 512)
    matrix.save(tmp_path / "imatrix.gguf")
    report = PackingReport()
    model.save_gguf(tmp_path / "plain.gguf", quantization="Q4_0")
    path = tmp_path / "imatrix.gguf"
    model.save_gguf(tmp_path / "weighted.gguf", quantization="Q4_0", imatrix=path, report=report)
    stated = values(tmp_path / "weighted.gguf")
    assert {key: value for key, value in stated.items() if key.startswith("quantize.")} == {
        "quantize.imatrix.file": str(path)[:127],
        "quantize.imatrix.dataset": "corpus",
        "quantize.imatrix.entries_count": 6,
        "quantize.imatrix.chunks_count": 7,
    }
    before, after = contents(tmp_path / "plain.gguf"), contents(tmp_path / "weighted.gguf")
    assert {name for name in before if before[name] != after[name]} == {*names}
    original = model.model.layers[1].mlp.up_proj.weight.detach()
    errors = {}
    for name in ("plain", "weighted"):
        packed = AutoModelForCausalLM.from_pretrained(tmp_path / f"{name}.gguf", dequantize=True)
        errors[name] = (packed.model.layers[1].mlp.up_proj.weight.detach() - original).square() * sums
    assert errors["weighted"].sum() < 0.9 * errors["plain"].sum()
    expected = (errors["weighted"].sum() / (original.square() * sums).sum()).sqrt().item()
    assert report.tensors["blk.1.ffn_up.weight"].weighted_error == pytest.approx(expected, rel=1e-5)
    assert report.tensors["blk.1.ffn_down.weight"].weighted_error is None
    with pytest.raises(ValueError, match="imatrix and report are for packing"):
        model.save_gguf(tmp_path / "no.gguf", imatrix=matrix)


def test_what_cannot_be_packed_to(mixed, tmp_path):
    path = tmp_path / "out.gguf"
    path.write_bytes(b"precious")
    model = AutoModelForCausalLM.from_pretrained(mixed, dequantize=True)
    with pytest.raises(ValueError, match=r"unknown quantization 'Q9_Z'; known: .*Q4_K_M.*NVFP4.*Q4_K"):
        model.save_gguf(path, quantization="Q9_Z")
    with pytest.raises(ValueError, match="unknown quantization 7; known:"):
        model.save_gguf(path, quantization=7)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 4] = torch.nan
    with pytest.raises(ValueError, match=r"'blk.1.ffn_up.weight': weights that are infinite or not a number"):
        model.save_gguf(path, quantization="Q4_K_M")
    assert path.read_bytes() == b"precious"


def test_changed_config(mixed, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(mixed)
    model.config.max_position_embeddings = 4096
    model.config.rope_parameters = {"rope_type": "linear", "rope_theta": 5000.0, "factor": 16.0}
    model.save_gguf(tmp_path / "longer.gguf")
    before, after = values(mixed), values(tmp_path / "longer.gguf")
    assert {key: value for key, value in after.items() if before.get(key) != value} == {
        "llama.context_length": 4096,
        "llama.rope.freq_base": 5000.0,
        "llama.rope.scaling.type": "linear",
        "llama.rope.scaling.factor": 16.0,
    }
    assert contents(tmp_path / "longer.gguf") == contents(mixed)
    # And back again: what was said before is unsaid.
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "longer.gguf")
    model.config.rope_parameters = {"rope_type": "default", "rope_theta": 5000.0}
    model.save_gguf(tmp_path / "back.gguf")
    assert not any("scaling" in key for key in values(tmp_path / "back.gguf"))


def test_frequency_factors_come_and_go_with_the_config(mixed, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(mixed)
    llama3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    model.config.rope_parameters = LlamaConfig(rope_scaling={"rope_type": "llama3", **llama3}).rope_parameters
    model.save_gguf(tmp_path / "a.gguf")
    assert contents(tmp_path / "a.gguf")["rope_freqs.weight"][0] == "F32"
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "a.gguf")
    model.config.rope_parameters = {"rope_type": "default", "rope_theta": 10000.0}
    model.save_gguf(tmp_path / "b.gguf")
    assert contents(tmp_path / "b.gguf") == contents(mixed)


def test_metadata(mixed, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(mixed)
    model.save_gguf(tmp_path / "named.gguf", metadata={"general.name": "Renamed", "general.author": "me"})
    changed = values(mixed) | {"general.name": "Renamed", "general.author": "me"}
    assert values(tmp_path / "named.gguf") == changed
    model.save_gguf(tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == mixed.read_bytes()


def test_progress(mixed, tmp_path):
    seen = []
    model = AutoModelForCausalLM.from_pretrained(mixed)
    model.save_gguf(tmp_path / "again.gguf", progress=lambda done, total: seen.append((done, total)))
    size = mixed.stat().st_size
    assert seen[-1] == (size, size) or seen[-1][0] <= size == seen[-1][1]


@pytest.mark.parametrize("name", ["mistral-sliding", "qwen2-sliding", "llama-longrope"])
@torch.no_grad()
def test_what_no_converter_writes(name, tmp_path):
    """Windows and LongRoPE survive the way through a file; transformers says what the logits are."""
    model = reference(LONGROPE if name == "llama-longrope" else CASES[name])
    counterpart(model).save_gguf(tmp_path / "model.gguf")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "model.gguf")
    ids = torch.randint(0, 400, (2, 24), generator=torch.Generator().manual_seed(0))
    assert type(again).__name__ == type(model).__name__
    assert_close(again(ids).logits, model(ids).logits, atol=1e-4, rtol=0)
    again.save_gguf(tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == (tmp_path / "model.gguf").read_bytes()


def test_without_head(mixed, tmp_path):
    """The head is left out on purpose, not as a tensor that nobody takes."""
    body, whole = AutoModel.from_pretrained(mixed), AutoModelForCausalLM.from_pretrained(mixed)
    ids = torch.arange(9)[None]
    assert torch.equal(body(ids).last_hidden_state, whole.model(ids).last_hidden_state)
    body.save_gguf(tmp_path / "body.gguf")  # the head is tied, so nothing is missing
    assert (tmp_path / "body.gguf").read_bytes() == mixed.read_bytes()

    counterpart(reference(CASES["llama"])).save_gguf(tmp_path / "untied.gguf")
    with pytest.raises(ValueError, match="LlamaModel has no head"):
        AutoModel.from_pretrained(tmp_path / "untied.gguf").save_gguf(tmp_path / "body.gguf")


UNWRITABLE = {
    "hidden_act": {"hidden_act": "gelu"},
    "truncate": {"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "truncate": False}},
}


@pytest.mark.parametrize(("word", "fields"), UNWRITABLE.items(), ids=UNWRITABLE.keys())
def test_what_gguf_cannot_say(word, fields, tmp_path):
    sizes = {"vocab_size": 8, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2, **fields))
    with pytest.raises(ValueError, match=word):
        model.save_gguf(tmp_path / "no.gguf")
    assert not (tmp_path / "no.gguf").exists()


def test_config_json_goes_to_transformers_and_back(mixed):
    import transformers

    config = AutoConfig.from_pretrained(mixed)
    theirs = transformers.LlamaConfig(**config.to_dict())
    assert theirs.hidden_size == 64 and theirs.rope_parameters == config.rope_parameters
    assert AutoConfig.for_model(**theirs.to_dict()).to_dict().items() >= config.to_dict().items()
