"""What is written says what the model is; what was not changed is written as it was."""

import gguf
import numpy as np
import pytest
import torch
from torch.testing import assert_close

from tests.models.files import edited, packed
from tests.models.tiny import CASES, LONGROPE, counterpart, reference
from torchgguf.container import GGUFError, open_gguf
from torchgguf.models import AutoConfig, AutoModel, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM


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


def test_what_cannot_be_packed_to(mixed, tmp_path):
    path = tmp_path / "out.gguf"
    path.write_bytes(b"precious")
    model = AutoModelForCausalLM.from_pretrained(mixed)
    with pytest.raises(GGUFError, match="rows of 64 elements"):
        model.save_gguf(path, quantization="Q4_K")
    with pytest.raises(ValueError, match="Q9_Z"):
        model.save_gguf(path, quantization="Q9_Z")
    assert path.read_bytes() == b"precious"
    model.save_gguf(path, quantization="F16")
    plain = AutoModelForCausalLM.from_pretrained(mixed, dequantize=True)
    again = AutoModelForCausalLM.from_pretrained(path, dequantize=True)
    assert contents(path)["token_embd.weight"][0] == "F16"
    assert contents(path)["output_norm.weight"][0] == "F32"
    for name, value in plain.state_dict().items():
        expected = value.half().float() if value.dim() == 2 else value
        assert torch.equal(again.state_dict()[name], expected), name


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


@pytest.mark.parametrize("card", [b"---\nname: [\n---\n", b"\xff"], ids=["no YAML", "no text"])
def test_a_model_card_that_cannot_be_read_is_left_out(tmp_path, card, caplog):
    reference(CASES["llama"]).save_pretrained(tmp_path / "Good-1B-chat")
    (tmp_path / "Good-1B-chat" / "README.md").write_bytes(card)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "Good-1B-chat")
    model.save_gguf(tmp_path / "model.gguf")
    (warning,) = (record.getMessage() for record in caplog.records)
    assert "Good-1B-chat says" in warning and "\n" not in warning
    assert values(tmp_path / "model.gguf")["general.name"] == "Good-1B-chat"


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
