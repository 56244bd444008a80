"""Phi-3 where it is no Llama: LongRoPE on either side of its length, heads rotated in part, older configs."""

import copy

import pytest
import torch
import transformers
from torch.testing import assert_close

from tests.models.files import edited
from tests.models.tiny import OWN_SIZES, Case, counterpart, longrope, reference
from torchgguf.container import GGUFError, open_gguf
from torchgguf.models import AutoConfig, AutoModelForCausalLM, Phi3Config, Phi3ForCausalLM
from torchgguf.models.core.config_map import Header

ORIGINAL = 10
LONG = Case("Phi3", longrope(8, original=ORIGINAL, longest=80))


@pytest.fixture(scope="module")
def theirs():
    return reference(LONG)


@pytest.fixture(scope="module")
def ours(theirs):
    return counterpart(theirs)


@pytest.fixture(scope="module")
def file(ours, tmp_path_factory):
    path = tmp_path_factory.mktemp("phi") / "long.gguf"
    ours.save_gguf(path)
    return path


def tokens(batch: int, length: int) -> torch.Tensor:
    return torch.randint(3, 400, (batch, length), generator=torch.Generator().manual_seed(length))


@pytest.mark.parametrize("length", [ORIGINAL - 1, ORIGINAL, ORIGINAL + 1, 3 * ORIGINAL])
@torch.no_grad()
def test_texts_on_either_side_of_the_original_length(theirs, ours, length):
    ids = tokens(2, length)
    assert_close(ours(ids).logits, theirs(ids).logits, atol=1e-4, rtol=0)


WAYS = {
    "greedy": {},
    "beams": {"num_beams": 3},
    "static": {"cache_implementation": "static"},
    "without a cache": {"use_cache": False},
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("length", [4, ORIGINAL, ORIGINAL + 1])
def test_growing_past_the_original_length(theirs, ours, length, way):
    """Where the frequencies change all keys do, so that the whole text is read again."""
    options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0, "eos_token_id": None, **way}
    ids = tokens(2, length)
    mask = torch.ones_like(ids)
    expected = theirs.generate(ids, attention_mask=mask, **options)
    assert torch.equal(ours.generate(ids, attention_mask=mask, **options), expected)
    mask[1, :3] = 0  # and in a batch with padding
    expected = theirs.generate(ids, attention_mask=mask, **options)
    assert torch.equal(ours.generate(ids, attention_mask=mask, **options), expected)


def test_chunks_of_a_prompt_past_the_original_length(theirs, ours):
    ids, options = tokens(1, 17), {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None}
    expected = theirs.generate(ids, attention_mask=torch.ones_like(ids), pad_token_id=0, **options)
    assert torch.equal(ours.generate(ids, prefill_chunk_size=4, **options), expected)


def test_padding_does_not_count_into_the_length(ours):
    """A batch is as long as its longest text: padded further it changes its frequencies no earlier."""
    ids, options = tokens(2, 6), {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None}
    padded = torch.cat((torch.zeros(2, 5, dtype=torch.long), ids), dim=1)
    mask = (torch.arange(11) >= 5).long().expand(2, -1)
    expected = ours.generate(ids, use_cache=False, **options)
    assert torch.equal(ours.generate(padded, attention_mask=mask, **options)[:, 5:], expected)


FACTORS = {"short_factor": [1.0 + i / 8 for i in range(6)], "long_factor": [2.0 + i for i in range(6)]}
LENGTHS = {"original_max_position_embeddings": 12, "max_position_embeddings": 48}
OLD = {
    "su": {**LENGTHS, "partial_rotary_factor": 0.75, "rope_scaling": {"type": "su", **FACTORS}},
    "longrope": {**LENGTHS, "partial_rotary_factor": 0.75, "rope_scaling": {"type": "longrope", **FACTORS}},
    "yarn": {**LENGTHS, "partial_rotary_factor": 0.75, "rope_scaling": {"type": "yarn", **FACTORS}},
    "another length": {
        **LENGTHS,
        "partial_rotary_factor": 0.75,
        "rope_scaling": {"type": "longrope", "original_max_position_embeddings": 30, **FACTORS},
    },
    "a factor of its own": {
        **LENGTHS,
        "rope_scaling": {"rope_type": "longrope", "factor": 9.0, "partial_rotary_factor": 0.75, **FACTORS},
    },
    "plain": {"rope_theta": 500.0, "rope_scaling": None, "partial_rotary_factor": 0.5},
}


@pytest.mark.parametrize("fields", OLD.values(), ids=OLD)
@torch.no_grad()
def test_older_configs(fields):
    """As the published config.json have them: `rope_scaling` with `type`, the part beside it."""
    values = {**OWN_SIZES["Phi3"], **fields}
    named = copy.deepcopy(values)
    if (named["rope_scaling"] or {}).get("type") == "su":
        named["rope_scaling"]["type"] = "longrope"  # its name today: transformers 5 trips over the first one
    theirs = transformers.Phi3ForCausalLM(transformers.Phi3Config(**named)).eval()
    twin = Phi3ForCausalLM(Phi3Config.from_dict(values)).eval()
    twin.load_state_dict(theirs.state_dict())
    for length in (12, 13):
        ids = tokens(2, length)
        assert_close(twin(ids).logits, theirs(ids).logits, atol=1e-4, rtol=0)
    again = AutoConfig.for_model(**twin.config.to_dict())
    assert again == twin.config
    theirs_again = transformers.Phi3Config.from_dict(twin.config.to_dict())
    assert theirs_again.rope_parameters["rope_type"] == theirs.config.rope_parameters["rope_type"]


REFUSED = {
    "scaling": ({"rope_parameters": {"rope_type": "linear", "factor": 2.0}}, "'linear'.*longrope"),
    "dropout": ({"embd_pdrop": 0.1}, r"embd_pdrop=0\.1"),
    "part": ({"partial_rotary_factor": 0.2}, r"partial_rotary_factor=0\.2 would rotate 3 of .*16"),
    "factors": (
        {"rope_parameters": {"rope_type": "longrope", "short_factor": [1.0], "long_factor": [1.0] * 8}},
        "short_factor.*1 factors, needs 8",
    ),
    "factors missing": (
        {"rope_parameters": {"rope_type": "longrope", "short_factor": [1.0] * 8}},
        "lack 'long_factor'",
    ),
}


@pytest.mark.parametrize(("fields", "words"), REFUSED.values(), ids=REFUSED)
def test_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        Phi3ForCausalLM(Phi3Config.from_dict({**OWN_SIZES["Phi3"], **fields}))


def test_dropout_of_what_is_added():
    """With nothing of it left, a layer changes nothing."""
    theirs = reference(Case("Phi3", {"resid_pdrop": 1.0})).train()
    twin, ids = counterpart(theirs).train(), tokens(1, 8)
    assert_close(twin(ids).logits, theirs(ids).logits, atol=1e-5, rtol=0)
    assert_close(twin.model(ids).last_hidden_state, twin.model.norm(twin.model.embed_tokens(ids)))


@torch.no_grad()
def test_files_hold_all_of_it(ours, theirs, file):
    config = AutoConfig.from_pretrained(file)
    assert config.original_max_position_embeddings == ORIGINAL
    assert config.sliding_window is None
    packed = AutoModelForCausalLM.from_pretrained(file)
    for length in (ORIGINAL, ORIGINAL + 1):
        ids = tokens(2, length)
        assert_close(packed(ids).logits, theirs(ids).logits, atol=1e-4, rtol=0)


def test_equal_factors_for_all_texts_are_written_twice(tmp_path):
    """llama.cpp knows no other tensors for this architecture."""
    same = {"long_factor": LONG.config["rope_parameters"]["short_factor"], "attention_factor": 1.0}
    given = {**LONG.config, "rope_parameters": {**LONG.config["rope_parameters"], **same}}
    counterpart(reference(Case("Phi3", given))).save_gguf(tmp_path / "same.gguf")
    with open_gguf(tmp_path / "same.gguf") as opened:
        assert torch.equal(opened["rope_factors_long.weight"], opened["rope_factors_short.weight"])
        assert "rope_freqs.weight" not in opened.tensors
    assert (
        Phi3ForCausalLM.from_pretrained(tmp_path / "same.gguf").config.rope_parameters["rope_type"]
        == "longrope"
    )


@pytest.mark.parametrize("size", range(2, 99, 2))
def test_every_part_of_a_head_comes_back(size):
    """Also where size / head_dim, as a float, is a little too small."""
    (rule,) = (rule for rule in Phi3ForCausalLM.architecture.rules if "rope.dimension_count" in rule.keys)
    sizes = {"embedding_length": 98, "attention.head_count": 1, "context_length": 8}
    header = Header({**sizes, "rope.dimension_count": size}, {}, lambda name: torch.empty(0))
    config = Phi3Config(hidden_size=98, num_attention_heads=1, **rule.read(header))
    assert rule.write(config)["rope.dimension_count"] == size
    # As transformers computes it.
    assert int(98 * config.rope_parameters.get("partial_rotary_factor", 1.0)) == size


WRONG = {
    "part too large": (
        {"phi3.rope.dimension_count": 18},
        {},
        r"rope\.dimension_count = 18 is invalid: a head's size is 16",
    ),
    "no part": ({"phi3.rope.dimension_count": 0}, {}, r"rope\.dimension_count = 0 "),
    "odd part": ({"phi3.rope.dimension_count": 15}, {}, "would rotate 15 of"),
    "one set": ({}, {"rope_factors_long.weight": None}, r"rope_factors_long\.weight is missing"),
    "one set, unnamed": (
        {"phi3.rope.scaling.type": None},
        {"rope_factors_short.weight": None},
        r"rope_factors_short\.weight is missing",
    ),
    "sets too small": ({"phi3.rope.dimension_count": 12}, {}, r"has shape \(8,\), expected \(6,\)"),
    "window": ({"phi3.attention.sliding_window": -1}, {}, r"sliding_window must be above 0"),
    "bias": ({}, {"blk.0.attn_qkv.bias": torch.zeros(128)}, r"blk\.0\.attn_qkv\.bias"),
    "projections apart": ({}, {"blk.0.attn_q.weight": torch.zeros(64, 64)}, r"blk\.0\.attn_q\.weight"),
}


@pytest.mark.parametrize(("values", "tensors", "words"), WRONG.values(), ids=WRONG)
def test_wrong_files(file, tmp_path, values, tensors, words):
    with pytest.raises(GGUFError, match=words):
        AutoModelForCausalLM.from_pretrained(edited(file, tmp_path / "wrong.gguf", values, tensors))
