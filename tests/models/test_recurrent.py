"""Models with states along the text beside transformers': long texts, padding, both caches, beams."""

import copy
from itertools import product

import pytest
import torch
import transformers
from torch.testing import assert_close

from tests.generation.conftest import Twins, prompts
from tests.models.hybrids import HYBRIDS, UNWRITABLE_HYBRIDS
from tests.models.tiny import CASES, UNWRITABLE, config_of, counterpart, reference, training
from torchgguf import AutoConfig, AutoModel, GenerationConfig
from torchgguf.nn import DynamicCache, StaticCache

ALL = {**HYBRIDS, **UNWRITABLE_HYBRIDS}
CACHES = {"dynamic": lambda: DynamicCache(), "static": lambda: StaticCache(None, 310)}
# Beyond the chunks in which a recurrence may be calculated, and no multiple of them.
LENGTHS = (300, 170, 41)


@pytest.fixture(scope="module", params=ALL, ids=ALL.keys())
def twins(request) -> Twins:
    """The same weights; neither ends a text by itself."""
    theirs = reference(ALL[request.param])
    theirs.generation_config = transformers.GenerationConfig(pad_token_id=1)
    ours = counterpart(theirs)
    ours.generation_config = GenerationConfig(pad_token_id=1)
    return Twins(theirs, ours)


def texts(*lengths: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(len(lengths))
    return [torch.randint(3, 400, (1, length), generator=generator) for length in lengths]


def test_all_models_with_states_are_here():
    for name, case in {**CASES, **UNWRITABLE}.items():
        with torch.device("meta"):
            model = AutoModel.from_config(AutoConfig.for_model(**config_of(case).to_dict()))
        assert getattr(model, "is_recurrent", False) == (name in ALL), name


@torch.no_grad()
def test_long_texts(twins):
    """At once, and in pieces through a cache: what states say of a text does not depend on its pieces."""
    (ids,) = texts(LENGTHS[0])
    expected = twins.theirs(ids).logits
    assert_close(twins.ours(ids, use_cache=False).logits, expected, atol=1e-4, rtol=0)
    for make in CACHES.values():
        cache = make()
        pieces = [twins.ours(piece, cache=cache).logits for piece in ids.split([2, 129, 1, 64, 100, 4], 1)]
        assert_close(torch.cat(pieces, 1), expected, atol=1e-4, rtol=0)
        assert cache.get_seq_length() == LENGTHS[0]


@torch.no_grad()
def test_half_precision(twins):
    """Plain weights in bfloat16 give nearly the same scores; states are in float32 all the same."""
    (ids,) = texts(LENGTHS[2])
    model, cache = copy.deepcopy(twins.ours).to(torch.bfloat16), DynamicCache()
    logits = [model(piece, cache=cache).logits for piece in ids.split([30, 1, 10], 1)]
    expected = twins.theirs(ids).logits
    errors = (torch.cat(logits, 1).float() - expected).abs()
    # Rounding makes a router choose another expert now and then.
    assert errors.median() < 0.1 * expected.std()


def test_gradients_of_long_texts(twins):
    (ids,) = texts(LENGTHS[0])
    gradients = []
    for model in (twins.theirs, training(twins.ours)):
        model.zero_grad()
        model(ids, labels=ids).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
        model.zero_grad()
        model.eval()
    for name, expected in gradients[0].items():
        assert_close(gradients[1][name], expected, atol=1e-4, rtol=1e-3, msg=name)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", CACHES)
@torch.no_grad()
def test_padded_texts_go_on(twins, side, kind):
    """Rows of unequal lengths, then two tokens more: each row is as transformers has it alone."""
    rows, width = texts(*(length + 2 for length in LENGTHS)), max(LENGTHS)
    expected = [twins.theirs(row).logits[0] for row in rows]
    ids, mask = torch.zeros(len(rows), width + 2, dtype=torch.long), torch.zeros(len(rows), width + 2)
    for row, real, text, length in zip(ids, mask, rows, LENGTHS, strict=True):
        place = slice(width - length, width) if side == "left" else slice(length)
        row[place], real[place] = text[0, :length], 1
        row[width:], real[width:] = text[0, length:], 1
    positions = (mask.cumsum(1) - 1).clamp(min=0).long()
    cache, logits = CACHES[kind](), []
    for place in (slice(20), slice(20, width), slice(width, width + 1), slice(width + 1, width + 2)):
        step = {"attention_mask": mask[:, : place.stop], "position_ids": positions[:, place], "cache": cache}
        logits.append(twins.ours(ids[:, place], **step).logits)
    joined = torch.cat(logits, 1)
    for row, real, alone in zip(joined, mask, expected, strict=True):
        assert_close(row[real.bool()], alone, atol=1e-4, rtol=0)


WAYS = {
    "dynamic": {"cache_implementation": "dynamic"},
    "static": {"cache_implementation": "static"},
    "dynamic chunks": {"cache_implementation": "dynamic", "prefill_chunk_size": 7},
    "static chunks": {"cache_implementation": "static", "prefill_chunk_size": 7},
    "no cache": {"use_cache": False},
}


@pytest.mark.parametrize("beams", [1, 3])
def test_generated_texts(twins, beams):
    """A batch padded on either side, with any cache, gives what transformers gives for each row alone."""
    lengths = (5, 19, 12)
    settings = {"num_beams": beams, "max_new_tokens": 9, "do_sample": False}
    left = prompts("left", lengths)
    alone = [row[real.bool()][None] for row, real in zip(*left.values(), strict=True)]
    expected = [twins.theirs.generate(ids, **settings)[0, ids.shape[1] :] for ids in alone]
    for way, side in product(WAYS.values(), ("left", "right")):
        out = twins.ours.generate(**prompts(side, lengths), **settings, **way)
        assert torch.equal(out[:, max(lengths) :], torch.stack(expected)), (way, side)
