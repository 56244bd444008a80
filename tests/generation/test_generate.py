"""`generate` beside transformers' on the same weights, and beside itself where transformers has no answer."""

import pytest
import torch
import transformers

from tests.support import SMOLLM2
from torchgguf import AutoModelForCausalLM, GenerationConfig
from torchgguf.generation import TextIteratorStreamer
from torchgguf.models import LlamaConfig, LlamaForCausalLM
from torchgguf.nn import DynamicCache

PAD = 0


def twin(hf: transformers.PreTrainedModel) -> LlamaForCausalLM:
    ours = LlamaForCausalLM(LlamaConfig.from_dict(hf.config.to_dict())).eval()
    ours.load_state_dict(hf.state_dict())
    return ours


@pytest.fixture(scope="module")
def llama(hf_llama):
    return twin(hf_llama)


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(3, 300, (n,), generator=generator).tolist() for n in (3, 9, 5, 1)]


@pytest.fixture(scope="module")
def alone(hf_llama, prompts) -> list[list[int]]:
    """What transformers' greedy decoding adds to each prompt by itself; no end token comes in the way."""
    return [
        hf_llama.generate(torch.tensor([p]), max_new_tokens=20, eos_token_id=299)[0, len(p) :].tolist()
        for p in prompts
    ]


def padded(prompts: list[list[int]], side: str) -> dict[str, torch.Tensor]:
    rows = torch.full((len(prompts), max(map(len, prompts))), PAD)
    mask = torch.zeros_like(rows)
    for row, real, prompt in zip(rows, mask, prompts, strict=True):
        where = slice(-len(prompt), None) if side == "left" else slice(len(prompt))
        row[where] = torch.tensor(prompt)
        real[where] = 1
    return {"input_ids": rows, "attention_mask": mask}


@pytest.mark.parametrize("options", [{}, {"use_cache": False}, {"prefill_chunk_size": 2}], ids=str)
def test_greedy_is_that_of_transformers(llama, prompts, alone, options):
    for prompt, expected in zip(prompts, alone, strict=True):
        ids = torch.tensor([prompt])
        out = llama.generate(ids, max_new_tokens=20, eos_token_id=299, **options)
        assert out.tolist() == [prompt + expected]


@pytest.mark.parametrize("options", [{}, {"use_cache": False}, {"prefill_chunk_size": 4}], ids=str)
@pytest.mark.parametrize("side", ["left", "right"])
def test_rows_of_a_padded_batch_are_as_if_alone(llama, prompts, alone, side, options):
    batch = padded(prompts, side)
    out = llama.generate(**batch, max_new_tokens=20, eos_token_id=299, **options)
    assert torch.equal(out[:, :9], batch["input_ids"])
    assert out[:, 9:].tolist() == alone


def test_padding_is_found_without_a_mask(llama, prompts, alone):
    batch = padded(prompts, "right")
    out = llama.generate(batch["input_ids"], max_new_tokens=20, eos_token_id=299)
    assert out[:, 9:].tolist() == alone


def test_finished_rows_are_filled_with_padding(llama, hf_llama, prompts, alone):
    ends = [alone[0][4], alone[1][2]]
    batch = padded(prompts, "left")
    expected = hf_llama.generate(**batch, max_new_tokens=20, eos_token_id=ends, pad_token_id=PAD)
    out = llama.generate(**batch, max_new_tokens=20, eos_token_id=ends)
    assert torch.equal(out, expected)
    assert (out[0, 9 + 5 :] == PAD).all()


SETTINGS = [
    {"max_length": 15},
    {},
    {"repetition_penalty": 1.5},
    {"min_new_tokens": 9},
    {"min_length": 14},
    {"max_new_tokens": 6, "max_length": 10},
    {"eos_token_id": None},
]


@pytest.mark.filterwarnings("ignore:Using the model-agnostic default:UserWarning")
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_settings_mean_what_they_mean_in_transformers(llama, hf_llama, prompts, alone, settings):
    batch = padded(prompts, "left") | {"eos_token_id": [alone[0][3], alone[1][3]], **settings}
    assert torch.equal(llama.generate(**batch), hf_llama.generate(**batch))


def test_sampling_draws_from_the_distribution_of_transformers(llama, hf_llama):
    settings = {"temperature": 1.3, "top_k": 12, "top_p": 0.9, "min_p": 0.02, "repetition_penalty": 1.2}
    ids = torch.tensor([[5, 6, 7, 8, 5]])
    scores = hf_llama.generate(
        ids, max_new_tokens=1, do_sample=True, output_scores=True, return_dict_in_generate=True, **settings
    ).scores[0]
    expected = scores.softmax(-1)[0]

    n = 20_000
    generator = torch.Generator().manual_seed(11)
    out = llama.generate(
        ids, max_new_tokens=1, do_sample=True, num_return_sequences=n, generator=generator, **settings
    )
    share = out[:, -1].bincount(minlength=300) / n
    assert (share[expected == 0] == 0).all()
    deviation = (expected * (1 - expected) / n).sqrt()
    assert ((share - expected).abs() <= 4 * deviation + 1e-9).all()


def test_sampling_is_repeatable_with_a_generator(llama, prompts):
    batch = padded(prompts, "right")

    def draw(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return llama.generate(**batch, do_sample=True, max_new_tokens=16, generator=generator)

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_several_continuations_of_each_prompt(llama, prompts):
    batch = padded(prompts, "right")
    out = llama.generate(
        **batch, do_sample=True, top_k=1, num_return_sequences=3, max_new_tokens=8, eos_token_id=299
    )
    greedy = llama.generate(**batch, max_new_tokens=8, eos_token_id=299)
    assert torch.equal(out, greedy.repeat_interleave(3, 0))


def test_the_iterator_yields_what_generate_returns(llama, prompts):
    batch = padded(prompts, "right")
    out = llama.generate(**batch, max_new_tokens=12)
    assert torch.equal(torch.stack(list(llama.generate_stream(**batch, max_new_tokens=12)), 1), out[:, 9:])


def test_an_abandoned_iterator_leaves_a_cache_to_go_on_from(llama, prompts, alone):
    ids, cache = torch.tensor([prompts[1]]), DynamicCache()
    stream = llama.generate_stream(ids, cache=cache, max_new_tokens=20, eos_token_id=299)
    first = [int(next(stream)) for _ in range(7)]
    stream.close()
    assert cache.get_seq_length() == len(prompts[1]) + 6
    again = torch.tensor([prompts[1] + first])
    out = llama.generate(again, cache=cache, max_new_tokens=13, eos_token_id=299)
    assert out[0, 9:].tolist() == alone[1]


def test_a_cache_filled_by_generate_can_be_trained_on_or_scored_with(llama, prompts):
    cache = DynamicCache()
    llama.generate(torch.tensor([prompts[1]]), cache=cache, max_new_tokens=4)
    with torch.no_grad():
        llama(torch.tensor([[7, 8]]), cache=cache)
    assert cache.get_seq_length() == 9 + 3 + 2


def test_generated_tokens_can_be_trained_on(llama, prompts):
    out = llama.generate(torch.tensor([prompts[1]]), max_new_tokens=4)
    llama(out, labels=out).loss.backward()
    llama.zero_grad()


def test_custom_processors_and_criteria(llama, hf_llama, prompts):
    ids = torch.tensor([prompts[0]])
    ban = [transformers.SuppressTokensLogitsProcessor(list(range(100, 300)))]
    stop = [transformers.MaxLengthCriteria(9)]
    theirs = hf_llama.generate(
        ids,
        max_new_tokens=20,
        logits_processor=transformers.LogitsProcessorList(ban),
        stopping_criteria=transformers.StoppingCriteriaList(stop),
    )
    ours = llama.generate(ids, max_new_tokens=20, logits_processor=ban, stopping_criteria=stop)
    assert torch.equal(ours, theirs)


def test_criteria_are_shown_the_scores_and_may_end_all_rows_at_once(llama, hf_llama, prompts):
    """As in transformers: a tuple of all steps' scores if they are asked for, else None."""
    batch, told = padded(prompts, "left"), []

    def after_three(input_ids, scores, **_):
        told.append(scores if scores is None else [step.shape for step in scores])
        return input_ids.shape[1] == 9 + 3

    for settings in ({}, {"return_dict_in_generate": True, "output_scores": True}):
        for model in (llama, hf_llama):
            stop = transformers.StoppingCriteriaList([after_three])
            model.generate(**batch, **settings, stopping_criteria=stop, max_new_tokens=9, eos_token_id=299)
    assert told[:6] == [None] * 6
    assert told[6:9] == told[9:]


def test_time_ends_a_text(llama, prompts):
    out = llama.generate(torch.tensor([prompts[0]]), max_time=1e-9, max_new_tokens=20, eos_token_id=299)
    assert out.shape == (1, 4)


@pytest.mark.parametrize(
    "settings",
    [
        {"no_repeat_ngram_size": 2},
        {"bad_words_ids": [[i] for i in range(100, 250)] + [[5, 6]]},
        {"suppress_tokens": list(range(150, 298)), "begin_suppress_tokens": list(range(90, 150))},
        {"forced_eos_token_id": 9, "exponential_decay_length_penalty": (2, 1.5)},
        {"sequence_bias": [[[i], -9.0] for i in range(40)]},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_processors_lead_to_the_tokens_of_transformers(llama, hf_llama, prompts, settings):
    settings = {**padded(prompts, "left"), **settings, "max_new_tokens": 20, "eos_token_id": 299}
    assert torch.equal(llama.generate(**settings), hf_llama.generate(**settings))


def test_without_a_prompt_the_text_starts_from_bos(llama, hf_llama):
    assert torch.equal(llama.generate(max_new_tokens=5), hf_llama.generate(max_new_tokens=5))


@pytest.fixture
def speech(hf_tokenizer) -> dict:
    """Settings for a long random text of tokens that spell something, bytes in place of characters aside."""
    spelling = {i for token, i in hf_tokenizer.get_vocab().items() if not token.startswith("<0x")}
    ban = [transformers.SuppressTokensLogitsProcessor([i for i in range(300) if i not in spelling])]
    settings = {"max_new_tokens": 40, "do_sample": True, "top_k": 0, "temperature": 3.0, "eos_token_id": []}
    return settings | {"tokenizer": hf_tokenizer, "logits_processor": ban}


def seed() -> torch.Generator:
    return torch.Generator().manual_seed(4)


def test_stop_strings_end_the_text_where_transformers_ends_it(llama, hf_tokenizer, speech):
    ids = torch.tensor([[5, 60, 70]])
    whole = llama.generate(ids, **speech, generator=seed())
    stop = hf_tokenizer.decode(whole[0, 20:22]).strip("\N{REPLACEMENT CHARACTER}")
    assert stop
    ends = transformers.StopStringCriteria(hf_tokenizer, stop)
    length = next(n for n in range(4, whole.shape[1] + 1) if ends(whole[:, :n], None))
    stopped = llama.generate(ids, **speech, generator=seed(), stop_strings=["never there", stop])
    assert torch.equal(stopped, whole[:, :length])


def test_streamed_text_is_the_decoding_of_the_output(llama, hf_tokenizer, speech):
    ids = torch.tensor([[5, 60, 70]])
    out = llama.generate(ids, **speech, generator=seed())
    text = hf_tokenizer.decode(out[0, 3:])
    streamer = TextIteratorStreamer(hf_tokenizer, skip_prompt=True)
    llama.generate(ids, **speech, generator=seed(), streamer=streamer)
    assert "".join(streamer) == text
    pieces = list(llama.stream(ids, **speech, generator=seed(), skip_special_tokens=False))
    assert "".join(pieces) == text
    assert len(pieces) > 20


def test_an_exception_ends_the_stream(llama, hf_tokenizer):
    def interrupt(ids, scores):
        raise KeyboardInterrupt

    streamer = TextIteratorStreamer(hf_tokenizer, skip_prompt=True, timeout=60)
    with pytest.raises(KeyboardInterrupt):
        llama.generate(torch.tensor([[5, 6]]), streamer=streamer, stopping_criteria=[interrupt])
    list(streamer)


def test_refused_options_end_the_stream(llama, hf_tokenizer):
    streamer = TextIteratorStreamer(hf_tokenizer, timeout=60)
    with pytest.raises(TypeError, match="temprature"):
        llama.generate(torch.tensor([[5, 6]]), streamer=streamer, temprature=0.5)
    assert list(streamer) == []


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"num_beems": 2}, TypeError, "'num_beems'"),
        ({"num_return_sequences": 2}, ValueError, "do_sample"),
        ({"guidance_scale": 2.0}, ValueError, "guidance_scale=2.0 is not supported"),
        ({"stop_strings": "x"}, ValueError, "tokenizer"),
        ({"stop_strings": ""}, ValueError, "empty stop string"),
        (
            {"use_cache": False, "cache": DynamicCache()},
            ValueError,
            "cache needs use_cache=True",
        ),
        ({"use_cache": False, "prefill_chunk_size": 2}, ValueError, "prefill_chunk_size needs use_cache"),
        ({"max_length": 2}, ValueError, "max_length=2 leaves no room after a prompt of 2"),
        ({"attention_mask": torch.tensor([[1, 1, 1]])}, ValueError, r"attention_mask has shape \(1, 3\)"),
        ({"attention_mask": torch.tensor([[0, 0]])}, ValueError, "no token in row 0"),
        ({"input_ids": torch.zeros(1, 0, dtype=torch.long)}, ValueError, r"not \(1, 0\)"),
        ({"input_ids": torch.tensor([5, 6])}, ValueError, r"not \(2,\)"),
    ],
)
def test_contradictions_are_refused(llama, arguments, error, message):
    with pytest.raises(error, match=message):
        llama.generate(**{"input_ids": torch.tensor([[5, 6]])} | arguments)


def test_a_cache_must_fit_the_prompt(llama):
    cache = DynamicCache()
    llama.generate(torch.tensor([[5, 6, 7]]), cache=cache, max_new_tokens=2)
    with pytest.raises(ValueError, match="holds 4 tokens, input_ids only 3"):
        llama.generate(torch.tensor([[5, 6, 7]]), cache=cache)
    with pytest.raises(ValueError, match="padded on the left, got padding on the right"):
        llama.generate(
            torch.tensor([[5, 6], [5, 0]]),
            attention_mask=torch.tensor([[1, 1], [1, 0]]),
            cache=DynamicCache(),
        )


def test_the_models_own_settings_are_its_defaults(hf_llama, prompts):
    ours = twin(hf_llama)
    ours.generation_config = GenerationConfig(max_new_tokens=7, eos_token_id=299)
    ids = torch.tensor([prompts[0]])
    assert ours.generate(ids).shape == (1, 3 + 7)
    assert ours.generate(ids, generation_config=GenerationConfig(max_new_tokens=4)).shape == (1, 3 + 4)
    assert ours.generate(ids, max_new_tokens=2).shape == (1, 3 + 2)


@pytest.mark.slow
def test_greedy_text_of_a_real_model():
    ours = AutoModelForCausalLM.from_pretrained(SMOLLM2, dequantize=True).eval()
    hf = transformers.LlamaForCausalLM(transformers.LlamaConfig(**ours.config.to_dict())).eval()
    hf.load_state_dict(ours.state_dict())
    ids = [[1, 4093, 198, 3725, 314, 260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531, 198], [504, 3575, 282]]
    expected = [
        hf.generate(torch.tensor([row]), max_new_tokens=24, do_sample=False, eos_token_id=2)[0, len(row) :]
        for row in ids
    ]
    for side in ("left", "right"):
        batch = padded(ids, side)
        out = ours.generate(**batch, max_new_tokens=24, pad_token_id=PAD)[:, batch["input_ids"].shape[1] :]
        for row, new in zip(out, expected, strict=True):
            assert row[: len(new)].tolist() == new.tolist()
            assert (row[len(new) :] == PAD).all()


@pytest.mark.parametrize(
    "options, expected",
    [
        ({}, [512, 88, 1, 1]),
        ({"prefill_chunk_size": None}, [600, 1, 1]),
        ({"prefill_chunk_size": 400}, [400, 200, 1, 1]),
        ({"cache_implementation": "static"}, [600, 1, 1]),
        ({"use_cache": False}, [600, 601, 602]),
        ({"return_dict_in_generate": True, "output_hidden_states": True}, [600, 1, 1]),
    ],
    ids=str,
)
def test_long_prompts_are_read_in_pieces_unless_that_is_impossible(llama, hf_llama, options, expected):
    """As a whole where states are recorded, and where a cache has no place for pieces."""
    ids = torch.randint(3, 290, (1, 600), generator=torch.Generator().manual_seed(0))
    read = []
    handle = llama.model.embed_tokens.register_forward_hook(lambda m, args, out: read.append(out.shape[1]))
    try:
        out = llama.generate(ids, max_new_tokens=3, eos_token_id=None, **options)
    finally:
        handle.remove()
    assert read == expected
    text = hf_llama.generate(ids, max_new_tokens=3, eos_token_id=None, do_sample=False)
    assert getattr(out, "sequences", out).tolist() == text.tolist()
