"""Bloom where it is unlike the others: distances instead of positions, one projection head by head."""

import gguf
import pytest
import torch
import transformers
from torch.testing import assert_close

from tests.models.files import edited, packed
from tests.models.tiny import CASES, UNWRITABLE, Case, counterpart, reference
from torchgguf.container import GGUFError, open_gguf
from torchgguf.models import AutoConfig, AutoModelForCausalLM, BloomConfig, BloomForCausalLM
from torchgguf.nn import QuantizedLinear

CASE = CASES["bloom-heads-beyond-a-power"]
MASKS = {  # of three rows of twelve: on either side, inside
    "left": [[0] * 4 + [1] * 8, [0] * 2 + [1] * 10, [1] * 12],
    "right": [[1] * 5 + [0] * 7, [1] * 11 + [0], [1] * 12],
    "inside": [[1] * 3 + [0] * 4 + [1] * 5, [1] * 12, [1, 0] * 6],
}


@pytest.fixture(scope="module")
def theirs():
    return reference(CASE)


@pytest.fixture(scope="module")
def file(theirs, tmp_path_factory):
    path = tmp_path_factory.mktemp("bloom") / "bloom.gguf"
    counterpart(theirs).save_gguf(path)
    return path


def tokens(batch: int, length: int) -> torch.Tensor:
    return torch.randint(1, 400, (batch, length), generator=torch.Generator().manual_seed(length))


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_padding(theirs, implementation, mask):
    """Logits, losses and gradients of padded batches; attended to as there, those of padding itself too."""
    twin, ids, mask = counterpart(theirs, implementation), tokens(3, 12), torch.tensor(mask).bool()
    counted = torch.ones_like(mask) if implementation == "eager" else mask
    labels = ids.clone()
    labels[:, 1:][~counted[:, :-1]] = -100  # each is predicted from the one before
    expected = theirs(ids, attention_mask=mask.long(), labels=labels)
    actual = twin(ids, attention_mask=mask.long(), labels=labels)
    assert_close(actual.logits[counted], expected.logits[counted], atol=1e-4, rtol=0)
    assert_close(actual.loss, expected.loss, atol=1e-5, rtol=0)
    theirs.zero_grad()
    expected.loss.backward()
    actual.loss.backward()
    gradients = {name: parameter.grad for name, parameter in twin.named_parameters()}
    for name, parameter in theirs.named_parameters():
        assert_close(gradients[name], parameter.grad, atol=1e-4, rtol=1e-3, msg=name)


WAYS = {
    "greedy": {},
    "beams": {"num_beams": 3},
    "static": {"cache_implementation": "static"},
    "without a cache": {"use_cache": False},
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_generate_from_a_padded_batch(theirs, implementation, way):
    options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0, "eos_token_id": None, **way}
    ids, mask = tokens(3, 12), torch.tensor(MASKS["left"])
    expected = theirs.generate(ids, attention_mask=mask, **options)
    assert torch.equal(
        counterpart(theirs, implementation).generate(ids, attention_mask=mask, **options), expected
    )


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "BF16"])
def test_packed_projections(file, tmp_path, kind):
    """Packed rows move whole between the orders of files and of transformers, and back."""
    with open_gguf(file) as opened:
        matrix, bias = (opened[f"blk.1.attn_qkv.{name}"].clone() for name in ("weight", "bias"))
    blocks = packed(matrix, kind)
    path = edited(file, tmp_path / "packed.gguf", tensors={"blk.1.attn_qkv.weight": blocks})
    numbers = gguf.quants.dequantize(blocks.load().view(torch.uint8).numpy(), gguf.GGMLQuantizationType[kind])
    # In files queries, keys and values of all heads lie together; in transformers those of each head do.
    heads, size = CASE.config["n_head"], CASE.config["hidden_size"]
    expected = torch.from_numpy(numbers).view(3, heads, -1, size).transpose(0, 1).reshape(3 * size, size)
    model = AutoModelForCausalLM.from_pretrained(path)
    layer = model.transformer.h[1].self_attention.query_key_value
    assert isinstance(layer, QuantizedLinear)
    assert torch.equal(layer.dequantize().weight, expected)
    assert torch.equal(layer.bias, bias.view(3, heads, -1).transpose(0, 1).flatten())
    model.save_gguf(tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == path.read_bytes()


@torch.no_grad()
def test_halves(theirs, file):
    """Distances are counted, not rounded: far from the start a half is as good as near it."""
    ids = tokens(1, 200)
    logits = AutoModelForCausalLM.from_pretrained(file, dtype="bfloat16")(ids).logits.float()
    expected = theirs(ids).logits
    near, far = ((logits - expected)[:, places].std() for places in (slice(20, 60), slice(160, 200)))
    assert far < 1.5 * near < 0.1 * expected.std()


def test_dropout_of_what_is_added():
    """With nothing of it left, a layer changes nothing."""
    theirs = reference(Case("Bloom", {"hidden_dropout": 1.0})).train()
    twin, ids = counterpart(theirs).train(), tokens(1, 8)
    assert_close(twin(ids).logits, theirs(ids).logits, atol=1e-5, rtol=0)
    embedded = twin.transformer.word_embeddings_layernorm(twin.transformer.word_embeddings(ids))
    assert_close(twin.transformer(ids).last_hidden_state, twin.transformer.ln_f(embedded))


NAMES = {
    "canonical": {"hidden_size": 96, "n_layer": 3, "n_head": 12},
    "common": {"hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 12},
    "published": {"n_embed": 96, "hidden_size": 64, "n_layer": 3, "num_attention_heads": 12},
}


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_names_in_configs(names):
    """Published config.json of Bloom mix names of several times."""
    ignored = {"offset_alibi": 100, "skip_bias_add": True, "masked_softmax_fusion": True, "n_inner": None}
    config, theirs = BloomConfig.from_dict({**names, **ignored}), transformers.BloomConfig(**names)
    for name in ("hidden_size", "n_layer", "n_head", "num_hidden_layers", "num_attention_heads"):
        assert getattr(config, name) == getattr(theirs, name)
    assert config.n_embed == 96
    saved = config.to_dict()
    assert {"n_embed", "num_hidden_layers", "num_attention_heads"}.isdisjoint(saved)
    assert AutoConfig.for_model(**saved) == config


@torch.no_grad()
def test_outputs(theirs):
    """The same fields under the same name; attention to an encoder, which they allow for, there is none."""
    twin, ids = counterpart(theirs), tokens(1, 8)
    for actual, expected in ((twin(ids), theirs(ids)), (twin.transformer(ids), theirs.transformer(ids))):
        assert type(actual).__name__ == type(expected).__name__
        assert list(actual.keys()) == list(expected.keys())


def test_how_sums_were_split_in_training_changes_nothing(theirs):
    ids = tokens(1, 8)
    config = BloomConfig.from_dict({**theirs.config.to_dict(), "pretraining_tp": 4, "slow_but_exact": False})
    twin = BloomForCausalLM(config).eval()
    twin.load_state_dict(theirs.state_dict())
    assert_close(twin(ids).logits, theirs(ids).logits, atol=1e-4, rtol=0)


def test_length_in_files(theirs, tmp_path):
    """As the converter has it: the length trained on, or else the width."""
    for given, stated in ((None, CASE.config["hidden_size"]), (2048, 2048)):
        model = counterpart(theirs)
        model.config.seq_length = given
        model.save_gguf(tmp_path / "length.gguf")
        with open_gguf(tmp_path / "length.gguf") as opened:
            assert opened.metadata["bloom.context_length"] == stated
        assert AutoConfig.from_pretrained(tmp_path / "length.gguf").seq_length == stated


def test_refused(theirs, tmp_path):
    with pytest.raises(ValueError, match="n_head must be a positive divisor of hidden_size=64, got n_head=5"):
        BloomConfig(n_head=5)
    with pytest.raises(ValueError, match="apply_residual_connection_post_layernorm=True"):
        counterpart(reference(UNWRITABLE["bloom-post-layernorm"])).save_gguf(tmp_path / "no.gguf")
    with pytest.raises(ValueError, match=r"attention_mask has shape \(2, 3\), expected \(2, 5\)"):
        counterpart(theirs)(tokens(2, 5), attention_mask=torch.ones(2, 3))


WRONG = {
    "slopes": ({"bloom.attention.max_alibi_bias": 4.0}, {}, r"max_alibi_bias = 4\.0"),
    "inner width": (
        {"bloom.feed_forward_length": 100},
        {},
        "feed_forward_length = 100 is invalid: it must be four times the width, 384",
    ),
    "grouped heads": ({"bloom.attention.head_count_kv": 4}, {}, "n_head is 4 by attention.head_count_kv"),
    "uneven heads": (
        {"bloom.attention.head_count": 5, "bloom.attention.head_count_kv": 5},
        {},
        "n_head must be a positive divisor of hidden_size=96, got n_head=5",
    ),
    "norm missing": ({}, {"token_embd_norm.bias": None}, r"missing tensors: token_embd_norm\.bias"),
    "projection too narrow": (
        {},
        {"blk.0.attn_qkv.weight": torch.zeros(96, 96)},
        r"blk\.0\.attn_qkv\.weight has shape \(96, 96\), expected \(288, 96\)",
    ),
    "positions": ({}, {"position_embd.weight": torch.zeros(8, 96)}, r"position_embd\.weight"),
}


@pytest.mark.parametrize(("values", "tensors", "words"), WRONG.values(), ids=WRONG)
def test_wrong_files(file, tmp_path, values, tensors, words):
    with pytest.raises(GGUFError, match=words):
        AutoModelForCausalLM.from_pretrained(edited(file, tmp_path / "wrong.gguf", values, tensors))


def test_llama_cpps_own_words_for_the_slopes(file, tmp_path):
    path = edited(file, tmp_path / "slopes.gguf", {"bloom.attention.max_alibi_bias": 8.0})
    assert AutoConfig.from_pretrained(path) == AutoConfig.from_pretrained(file)
