"""Arguments of transformers' `generate` mean here what they mean there, or are refused by name."""

import warnings

import pytest
import torch
import transformers

from tests.generation.conftest import Twins, prompts
from tests.models.tiny import CASES, counterpart, reference
from torchgguf import GenerationConfig, LogitsProcessorList, StoppingCriteriaList
from torchgguf.generation import MaxLengthCriteria, TemperatureLogitsWarper

OPTIONS = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None, "pad_token_id": 1}


def same(twins: Twins, *arguments, **options) -> torch.Tensor:
    """Generate with both; return what both made."""
    theirs, ours = (model.generate(*arguments, **options) for model in twins)
    assert torch.equal(ours, theirs)
    return ours


def allowed(prompt: int, text: torch.Tensor) -> list[int]:
    return [10 + prompt, 20 + int(text[-1]) % 7, 31]


@pytest.mark.parametrize("ways", [{}, {"num_beams": 3}], ids=["greedy", "beams"])
def test_prompts_positions_and_constraints(twins: Twins, ways):
    padded, options = prompts(), {**OPTIONS, **ways}
    ids, mask = padded["input_ids"], padded["attention_mask"]
    usual = same(twins, inputs=ids, attention_mask=mask, **options)
    given = twins.ours.generate(ids, GenerationConfig(**options), attention_mask=mask)
    assert torch.equal(given, usual)
    same(twins, ids, attention_mask=mask, prefix_allowed_tokens_fn=allowed, **options)
    whole = ids[:, -3:]
    positions = torch.arange(4, 7)[None].expand(3, 3)
    same(twins, whole, position_ids=positions, **options)


@pytest.mark.parametrize("ways", [{}, {"num_beams": 3}], ids=["greedy", "beams"])
@pytest.mark.parametrize("with_ids", [False, True])
def test_embeddings_instead_of_tokens(twins: Twins, ways, with_ids):
    padded, options = prompts(), {**OPTIONS, **ways}
    embeds = twins.theirs.get_input_embeddings()(padded["input_ids"]).detach() * 1.1
    inputs = {"inputs_embeds": embeds, "attention_mask": padded["attention_mask"]}
    made = same(twins, **inputs, **options, **({"input_ids": padded["input_ids"]} if with_ids else {}))
    assert made.shape[1] == 5 + (9 if with_ids else 0)
    right = prompts("right")
    order = {"inputs_embeds": twins.ours.get_input_embeddings()(right["input_ids"]) * 1.1}
    ours = twins.ours.generate(**order, attention_mask=right["attention_mask"], **options)
    if not with_ids:
        assert torch.equal(ours, made)  # padding on the right is moved
        uncached = twins.ours.generate(**inputs, **options, use_cache=False)
        chunks = twins.ours.generate(**inputs, **options, prefill_chunk_size=4)
        assert torch.equal(uncached, made) and torch.equal(chunks, made)


NOTHING = [
    "assistant_model",
    "cache_position",
    "custom_generate",
    "decoder_input_ids",
    "generation_config",
    "inputs",
    "inputs_embeds",
    "logits_processor",
    "negative_prompt_attention_mask",
    "negative_prompt_ids",
    "output_attentions",
    "position_ids",
    "prefix_allowed_tokens_fn",
    "prompt_lookup_num_tokens",
    "stopping_criteria",
    "streamer",
    "synced_gpus",
    "token_type_ids",
    "unheard_of",
]
EMPTY = {
    "synced_gpus": False,
    "bad_words_ids": [],
    "sequence_bias": {},
    "suppress_tokens": [],
    "begin_suppress_tokens": [],
    "stop_strings": [],
    "no_repeat_ngram_size": 0,
    "min_new_tokens": 0,
    "top_k": -1,
    "guidance_scale": 1.0,
    "num_beam_groups": 1,
    "prompt_lookup_num_tokens": 0,
    "num_assistant_tokens": 20,
    "disable_compile": True,
    "logits_to_keep": 1,
    "remove_invalid_values": True,
}


def test_what_asks_for_nothing_changes_nothing():
    model = counterpart(reference(CASES["llama"]))
    ids = torch.tensor([[5, 6, 7]])
    expected = model.generate(ids, **OPTIONS)
    for name, value in [*((name, None) for name in NOTHING), *EMPTY.items()]:
        assert torch.equal(model.generate(ids, **OPTIONS, **{name: value}), expected), name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("assistant_model", object()),
        ("negative_prompt_ids", torch.ones(1, 2)),
        ("synced_gpus", True),
        ("custom_generate", "group/name"),
        ("guidance_scale", 1.5),
        ("penalty_alpha", 0.6),
    ],
)
def test_what_asks_for_more_is_refused_by_name(name, value):
    model = counterpart(reference(CASES["llama"]))
    with pytest.raises(ValueError, match=f"{name}.* is not supported"):
        model.generate(torch.tensor([[5, 6]]), **{name: value})


def test_token_types_go_on(twins: Twins):
    if twins.theirs.config.model_type != "gpt2":
        pytest.skip("only GPT-2 reads them")
    ids, kinds = torch.tensor([[5, 6, 7], [8, 9, 10]]), torch.tensor([[9, 9, 11], [11, 9, 9]])
    same(twins, ids, token_type_ids=kinds, attention_mask=torch.ones_like(ids), **OPTIONS)


def test_processors_and_criteria_of_both_packages(twins: Twins):
    """Lists and instances of transformers work here; one of the call replaces that of the config."""
    ids = torch.tensor([[5, 6, 7]])
    mask = {"attention_mask": torch.ones_like(ids)}
    options = {**OPTIONS, "no_repeat_ngram_size": 1, "repetition_penalty": 1.2}
    processors = [
        transformers.NoRepeatNGramLogitsProcessor(2),
        transformers.SuppressTokensLogitsProcessor([int(twins.ours.generate(ids, **OPTIONS)[0, 3])]),
    ]
    criteria = [transformers.MaxLengthCriteria(6)]
    expected = twins.theirs.generate(
        ids,
        logits_processor=transformers.LogitsProcessorList(processors),
        stopping_criteria=transformers.StoppingCriteriaList(criteria),
        **options,
        **mask,
    )
    assert expected.shape == (1, 6)
    for lists in (
        (transformers.LogitsProcessorList(processors), transformers.StoppingCriteriaList(criteria)),
        (LogitsProcessorList(processors), StoppingCriteriaList([MaxLengthCriteria(6)])),
        ([LogitsProcessorList(processors[1:]), processors[0]], [StoppingCriteriaList(criteria)]),
    ):
        ours = twins.ours.generate(ids, None, *lists, **options, **mask)
        assert torch.equal(ours, expected)


class Scaled:
    def __call__(self, ids, scores, more):
        return scores * more


def test_lists_do_what_transformers_do():
    ids, scores = torch.tensor([[3, 4], [5, 6]]), torch.randn(2, 9)
    ours, theirs = LogitsProcessorList([TemperatureLogitsWarper(0.5)]), transformers.LogitsProcessorList()
    theirs.append(transformers.TemperatureLogitsWarper(0.5))
    assert torch.equal(ours(ids, scores), theirs(ids, scores))
    for each in (ours, theirs):
        each.append(Scaled())
        with pytest.raises(ValueError):
            each(ids, scores)
    assert torch.equal(ours(ids, scores, more=2), theirs(ids, scores, more=2))
    for length in (2, 3):
        lists = StoppingCriteriaList([MaxLengthCriteria(length)]), transformers.StoppingCriteriaList()
        lists[1].append(transformers.MaxLengthCriteria(length))
        assert torch.equal(lists[0](ids, None), lists[1](ids, None))
        assert lists[0].max_length == lists[1].max_length == length


@pytest.mark.parametrize("pad", [-1, 400, 10**9])
@pytest.mark.parametrize(
    "ways",
    [{}, {"num_beams": 2}, {"cache_implementation": "static"}, {"do_sample": True, "top_k": 1}],
    ids=str,
)
def test_padding_outside_the_vocabulary_is_never_read(pad, ways):
    model = counterpart(reference(CASES["llama"]))
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])
    free = model.generate(ids, max_new_tokens=6, eos_token_id=None, pad_token_id=0)
    end = int(free[0, 4])
    assert end not in free[1, 3:].tolist()
    with pytest.warns(UserWarning, match=f"pad_token_id={pad} is outside the vocabulary"):
        made = model.generate(ids, max_new_tokens=6, eos_token_id=end, pad_token_id=pad, **ways)
    assert int(made.min()) >= 0 and int(made.max()) < 400
    mask = torch.tensor([[0, 1, 1], [1, 1, 1]])
    hidden = ids.masked_fill(mask == 0, pad)
    for given in ({"attention_mask": mask}, {"pad_token_id": pad}):
        made = model.generate(hidden, **{"max_new_tokens": 3, "eos_token_id": None, **given, **ways})
        expected = model.generate(ids, attention_mask=mask, max_new_tokens=3, eos_token_id=None, **ways)
        assert torch.equal(made[:, 3:], expected[:, 3:])
    with pytest.raises(ValueError, match=f"input_ids must be .*vocab_size=400, got {pad} in row 0"):
        model.generate(hidden, attention_mask=torch.ones_like(mask), max_new_tokens=3, **ways)


def test_no_token_that_is_forbidden_is_chosen():
    model = counterpart(reference(CASES["llama"]))
    ids = torch.tensor([[5, 6, 7]])
    for ways in ({}, {"num_beams": 2}, {"do_sample": True}):
        with pytest.raises(RuntimeError, match="there is no token"):
            model.generate(ids, suppress_tokens=list(range(400)), max_new_tokens=2, **ways)

    def few(prompt: int, text: torch.Tensor) -> list[int]:
        return [2] if len(text) >= 5 or int(text[-1]) == 2 else [2, 9]

    options = {"num_beams": 4, "num_return_sequences": 4, "max_new_tokens": 6, "eos_token_id": 2}
    with pytest.warns(UserWarning, match="fewer texts than num_return_sequences"):
        made = model.generate(ids, prefix_allowed_tokens_fn=few, pad_token_id=0, **options)
    texts = [row[3 : row.index(2) + 1] for row in made.tolist()]
    assert all(text in ([2], [9, 2], [9, 9, 2]) for text in texts)


@pytest.mark.parametrize(
    ("rows", "padded"),
    [
        ([[2, 2, 5], [6, 7, 8]], True),
        ([[5, 6, 2], [6, 7, 8]], True),
        ([[2, 5, 6], [2, 7, 8]], False),  # a bos token
        ([[5, 6, 7], [6, 7, 8]], False),
        ([[2, 2, 5]], False),
    ],
)
def test_padding_that_may_be_an_end_is_pointed_out(rows, padded):
    model, ids = counterpart(reference(CASES["llama"])), torch.tensor(rows)
    options = {"max_new_tokens": 2, "pad_token_id": 2, "eos_token_id": 2}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model.generate(ids, **options)
        assert any("without attention_mask" in str(each.message) for each in said) == padded
        said.clear()
        model.generate(ids, attention_mask=torch.ones_like(ids), **options)
        assert not said


def test_texts_beyond_the_context_are_announced():
    for name in ("llama", "gpt2"):
        model = counterpart(reference(CASES[name]))
        limit = model.config.max_position_embeddings
        ids = torch.randint(3, 400, (1, limit - 4))
        options = {"eos_token_id": None, "pad_token_id": 0}
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert model.generate(ids, max_new_tokens=4, **options).shape[1] == limit
        with pytest.warns(UserWarning, match=f"up to 30 may follow, but the model's context is {limit}"):
            made = model.generate(ids, max_new_tokens=30, **options)
        # Without positions beyond it, the text ends with the last token that can be made.
        assert made.shape[1] == (limit + 1 if name == "gpt2" else limit + 26)
    with pytest.raises(
        ValueError, match=f"the prompt has {limit + 1} tokens, but the model's context is {limit}"
    ):
        model.generate(torch.full((1, limit + 1), 5), max_new_tokens=1, **options)


def test_outputs_are_mappings_too(twins: Twins):
    ids = torch.tensor([[5, 6, 7]])
    theirs, ours = (
        model.generate(ids, return_dict_in_generate=True, output_scores=True, **OPTIONS) for model in twins
    )
    assert set(ours.keys()) <= set(theirs.keys())
    assert ours.get("logits") is None and ours.get("logits", 3) == theirs.get("logits", 3) == 3
    assert "scores" in ours and "logits" not in ours and "past_key_values" in ours
    assert dict(**ours).keys() == dict(ours.items()).keys() == {"sequences", "scores", "cache"}
    assert torch.equal(ours.pop("sequences"), theirs["sequences"])
    assert "sequences" not in ours and ours.pop("sequences", None) is None
    with pytest.raises(KeyError):
        ours.pop("sequences")
