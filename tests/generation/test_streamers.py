"""Streamed text adds up to the decoding of the whole, with real tokenizers and whatever tokens come."""

import asyncio
import random
from threading import Thread

import pytest
import torch
import transformers

from tests.generation.conftest import TEXT
from tests.support import VOCABS
from torchgguf import AutoTokenizer
from torchgguf.generation import AsyncTextIteratorStreamer, Detokenizer, TextIteratorStreamer, TextStreamer


def texts(tokenizer) -> list[list[int]]:
    """Token lists: real text, its parts; for byte-level tokens also what is no valid UTF-8."""
    rng = random.Random(0)
    text = "".join(TEXT[:2])
    parts = [text, *(text[rng.randrange(len(text)) :][: rng.randrange(60)] for _ in range(20))]
    lists = [tokenizer(part)["input_ids"] for part in parts]
    if "<0x00>" not in tokenizer.get_vocab():
        lists += [lists[0][rng.randrange(len(lists[0])) :][: rng.randrange(40)] for _ in range(20)]
        lists += [[rng.randrange(len(tokenizer)) for _ in range(30)] for _ in range(20)]
    return lists


@pytest.mark.parametrize("skip_special_tokens", [True, False])
def test_pieces_add_up_to_the_decoding(hf_tokenizer, skip_special_tokens):
    for ids in texts(hf_tokenizer):
        detokenizer = Detokenizer(hf_tokenizer, skip_special_tokens=skip_special_tokens)
        pieces = [detokenizer.push([token]) for token in ids]
        text = "".join(pieces) + detokenizer.flush()
        assert text == hf_tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)


def test_whole_characters_only(hf_tokenizer):
    detokenizer = Detokenizer(hf_tokenizer)
    ids = hf_tokenizer("".join(TEXT[:2]))["input_ids"]
    pieces = [detokenizer.push([token]) for token in ids]
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(pieces)
    assert detokenizer.flush() == ""


def feed(streamer, prompt: list[int], ids: list[int]) -> None:
    streamer.put(torch.tensor([prompt]))
    for token in ids:
        streamer.put(torch.tensor([token]))
    streamer.end()


@pytest.mark.parametrize("skip_prompt", [True, False])
def test_prints_what_transformers_prints(hf_tokenizer, capsys, skip_prompt):
    ids = hf_tokenizer("".join(TEXT[:1]).strip())["input_ids"]
    ids = ids[: len(ids) // 2]  # no newline inside, where transformers loses a space of SentencePiece
    feed(transformers.TextStreamer(hf_tokenizer, skip_prompt), ids[:5], ids[5:])
    expected = capsys.readouterr().out
    streamer = TextStreamer(hf_tokenizer, skip_prompt)
    for _ in range(2):  # a streamer serves one call after another
        feed(streamer, ids[:5], ids[5:])
        assert capsys.readouterr().out == expected


def test_iterator_in_another_thread(hf_tokenizer):
    ids = hf_tokenizer("".join(TEXT[:2]))["input_ids"]
    streamer = TextIteratorStreamer(hf_tokenizer, skip_prompt=True, timeout=60)
    thread = Thread(target=feed, args=(streamer, ids[:3], ids[3:]))
    thread.start()
    pieces = list(streamer)
    thread.join()
    assert "".join(pieces) == hf_tokenizer.decode(ids[3:])
    assert len(pieces) > 10


@pytest.mark.parametrize("name", ["gpt-2", "llama-spm"])
@pytest.mark.parametrize("skip_special_tokens", [True, False])
def test_our_tokenizers_say_at_once_what_no_later_token_can_change(name, skip_special_tokens):
    tokenizer = AutoTokenizer.from_pretrained(VOCABS / f"ggml-vocab-{name}.gguf")
    never = tokenizer.convert_tokens_to_ids("<0xFF>" if name == "llama-spm" else "ÿ")  # no byte of UTF-8
    ids = [*tokenizer("".join(TEXT[:2]))["input_ids"], *[never] * 20, tokenizer.eos_token_id]
    streamer = TextIteratorStreamer(tokenizer, timeout=60, skip_special_tokens=skip_special_tokens)
    feed(streamer, ids[:3], ids[3:])
    pieces = list(streamer)
    assert "".join(pieces) == tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)
    assert pieces.count("\N{REPLACEMENT CHARACTER}") == 20


def test_a_batch_is_refused(hf_tokenizer):
    with pytest.raises(ValueError, match="batch of 2"):
        TextStreamer(hf_tokenizer).put(torch.zeros(2, 3, dtype=torch.long))


def test_an_asynchronous_iterator(hf_tokenizer):
    """It yields the text, ends with it, and waits no longer than it is told."""

    async def read() -> tuple[str, bool]:
        streamer = AsyncTextIteratorStreamer(hf_tokenizer, skip_prompt=True, timeout=5)

        def write() -> None:
            streamer.put(torch.tensor([hf_tokenizer("the prompt")["input_ids"]]))
            for token in hf_tokenizer(TEXT[1])["input_ids"]:
                streamer.put(torch.tensor([token]))
            streamer.end()

        thread = Thread(target=write)
        thread.start()
        text = "".join([piece async for piece in streamer])
        thread.join()
        streamer.timeout = 0.01
        try:
            await anext(streamer)
        except TimeoutError:
            return text, True
        return text, False

    text, waited = asyncio.run(read())
    assert waited
    assert text == hf_tokenizer.decode(hf_tokenizer(TEXT[1])["input_ids"])
