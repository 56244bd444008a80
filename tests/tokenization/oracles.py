"""Outside evidence for tokenizers: llama.cpp behind its own server, and text that is hard to tokenize."""

import json
import os
import random
import unicodedata
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from torchgguf.container import ArrayType, Metadata, ValueType, write_gguf
from torchgguf.tokenization import Tokenizer

_SEPARATOR = 999_999_999  # an id that no vocabulary has: llama.cpp passes numbers in its input on


class LlamaCpp:
    """llama.cpp's tokenizer of a model file."""

    def __init__(self, path: Path) -> None:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx = 64
        params.warmup = False
        params.verbosity = -1
        params.port = 0
        params.endpoint_metrics = True
        self._server = xllamacpp.Server(params)
        # Answered by the server's own thread: to end a server before that has begun is to wait forever.
        self._server.handle_metrics()

    def encode(self, texts: Sequence[str], parse_special: bool = True) -> list[list[int]]:
        """Token ids of each text, without BOS and EOS."""
        content: list[str | int] = []
        for text in texts:
            content += [text, _SEPARATOR]
        body = {"content": content, "add_special": False, "parse_special": parse_special}
        result: list[list[int]] = [[]]
        for token in self._post("/tokenize", body)["tokens"]:
            if token == _SEPARATOR:
                result.append([])
            else:
                result[-1].append(token)
        return result[:-1]

    def encode_with_special(self, text: str) -> list[int]:
        """Token ids of one text, with the BOS and EOS that the file asks for."""
        return self._post("/tokenize", {"content": text, "add_special": True, "parse_special": True})[
            "tokens"
        ]

    def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        request = urllib.request.Request(
            self._server.listening_address + path,
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)


def with_tiny_model(tokenizer: Mapping[str, Any], path: Path) -> Path:
    """Write the tokenizer's metadata with a llama of one layer, which llama.cpp needs to serve it."""
    width, tokens = 32, len(tokenizer["tokenizer.ggml.tokens"])
    metadata = Metadata(
        {
            "general.architecture": "llama",
            "llama.block_count": 1,
            "llama.context_length": 64,
            "llama.embedding_length": width,
            "llama.feed_forward_length": width,
            "llama.attention.head_count": 1,
            "llama.attention.layer_norm_rms_epsilon": 1e-5,
        }
    )
    if not isinstance(tokenizer, Metadata):
        tokenizer = Metadata(tokenizer, {"tokenizer.ggml.token_type": ArrayType(ValueType.INT32)})
    metadata.update(tokenizer)
    names = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
    tensors = {f"blk.0.{name}.weight": torch.zeros(width, width) for name in names}
    tensors |= {f"blk.0.{name}.weight": torch.ones(width) for name in ("attn_norm", "ffn_norm")}
    tensors |= {"token_embd.weight": torch.zeros(tokens, width, dtype=torch.float16)}
    write_gguf(path, metadata, tensors | {"output_norm.weight": torch.ones(width)})
    return path


_POOLS: list[list[str]] = [
    [chr(c) for c in range(128)],
    [" ", "  ", "   ", "\t", "\n", "\r\n", "\n\n", " \n", "\xa0", "\u3000", "\u2028", "\x85", "\v", "\x1c"],
    ["\u200b", "\u200d", "\ufe0f", "\ufeff", "\u0301", "\u0300", "\u0327", "\u093f", "\u0e33", "\u1161"],
    [chr(c) for c in range(0x300, 0x370)],
    [chr(c) for c in range(0xAC00, 0xD7A4, 97)],
    [chr(c) for c in range(0x4E00, 0x9FFF, 211)],
    ["あ", "ア", "ー", "、", "。", "「", "」", "ﾊ", "ا", "ل", "ם", "ก", "ำ", "ह", "ி", "ქ"],
    [*"0123456789", "½", "Ⅷ", "٣", "²", "１", "1000", "12345"],
    ["'s", "'t", "'re", "'VE", "'Ll", "'D", "'M", "'", "’s"],
    ["👩", "👨", "🏽", "😶‍🌫️", "🦙", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "🇩🇪", "1️⃣"],
    [*"àÀéßŁǅʰªºİıﬁ"],
    [*'.,!?;:-_=+*/\\|<>@#$%^&(){}[]~`"', "...", "=====", "</", "/>"],
    [
        "Hello",
        "world",
        "the",
        "quick",
        "camelCase",
        "UPPER",
        "I'm",
        "нещо",
        "Български",
        "apple工作",
        "naïve",
    ],
    ["ab", "aba", "ababa", "aaaa", "▁", "▁▁", "<0x41>", "<s>", "def f(x):\n    return x\n"],
]


def hard_texts(count: int, special: Sequence[str] = (), seed: int = 0) -> list[str]:
    """Random strings of all that tokenizers stumble over, special tokens and halves of them included."""
    rng = random.Random(seed)
    pools = [*_POOLS, list(special) or [" "]]

    def piece() -> str:
        chosen = rng.randrange(20)
        if chosen < 2:
            return _any_character(rng)
        if chosen < 4 and special:
            token = rng.choice(special)
            cut = rng.randrange(len(token) + 1)
            return rng.choice((token[:cut], token[cut:]))
        return rng.choice(rng.choice(pools))

    return ["".join(piece() for _ in range(rng.randrange(1, rng.choice([4, 12, 40])))) for _ in range(count)]


# What Unicode 16 added some tables have and others lack. Where Python's own is as new, an old one will do.
_UNICODE = unicodedata if unicodedata.unidata_version < "16" else unicodedata.ucd_3_2_0


def _any_character(rng: random.Random) -> str:
    """Any character, other than those that Unicode added of late."""
    character = chr(rng.randrange(rng.choice([0x800, 0x3000, 0x20000, 0x110000])))
    category = _UNICODE.category(character)
    late = category == "Cn" and (character < "\U00040000" or character >= "\U000e0000")
    return "?" if late or category == "Cs" else character


def as_bert(text: str) -> bool:
    """Whether llama.cpp does with a text as BERT does.

    BERT takes Korean syllables apart, of which llama.cpp keeps the first letter; it drops marks that BERT
    keeps, lets control characters part words that BERT joins, and reads U+2581 as the mark of a word. BERT's
    tables are older than llama.cpp's.
    """
    return not any(
        unicodedata.category(c) in ("Mc", "Me")
        or unicodedata.category(c) != unicodedata.ucd_3_2_0.category(c)
        or "\uac00" <= c <= "\ud7a3"
        or c in "\x0b\x0c\x1c\x85▁"
        for c in text
    )


def without_marks(text: str) -> bool:
    """Whether a text has none of the marks that Unigram's normalizers treat unlike each other.

    The library normalizes a letter with its marks as one, llama.cpp and SentencePiece what is longest.
    """
    return not any(unicodedata.category(c)[0] == "M" or c in "\u0e33\u200d" for c in text)


def batches_of_texts(count: int, special: Sequence[str] = (), seed: int = 0) -> Iterator[list[str]]:
    """`count` hard texts, or as many as the environment asks for, in batches."""
    rest = max(count, int(os.environ.get("TORCHGGUF_TEXTS", 0)))
    while rest > 0:
        yield hard_texts(min(rest, 5000), special, seed)
        rest, seed = rest - 5000, seed + 1000


def unequal(
    tokenizer: Tokenizer, oracle: LlamaCpp, texts: list[str], modes: Sequence[bool] = (True, False)
) -> list[tuple[str, bool, list[int], list[int]]]:
    """Texts to which the two give other ids, with special tokens in them taken for such and not: the text,
    which of the two that was, our ids and llama.cpp's.
    """
    rows = []
    for parse_special in modes:
        ours = tokenizer(texts, add_special_tokens=False, split_special_tokens=not parse_special).input_ids
        theirs = oracle.encode(texts, parse_special)
        rows += [(text, parse_special, *ids) for text, *ids in zip(texts, ours, theirs, strict=True)]
    return [row for row in rows if row[2] != row[3]]
