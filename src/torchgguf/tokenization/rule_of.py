"""What GGUF calls the way in which a tokenizer splits texts, found by how it splits some."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

from tokenizers import Regex, Tokenizer, pre_tokenizers

from torchgguf.tokenization.errors import TokenizerError
from torchgguf.tokenization.pre_tokenizers import PRE_TOKENIZERS, PreTokenizer

# Whatever some rule treats unlike others: letters of each kind, marks, digits, symbols, white space.
_ATOMS = (
    *("a", "Z", "word", "WORD", "Word", "é", "ß", "ǅ", "ʰ", "ª", "e\u0301", "\u0301", "Я", "нещо", "ſ"),
    *("'s", "'S", "'Re", "'ll", "'d", "'", "’s", "don't", "I'M", "x'VE"),
    *("7", "42", "123", "1234", "12345678", "½", "Ⅷ", "٣", "²", "１", "3.14", "1,000,000"),
    *("我想", "在", "ひらがな", "カタカナ", "ー", "한국어", "ㄱ", "ภาษา", "កាន់", "हिन्दी", "ㄅ", "ﾊ", "⼀"),
    *(
        ".",
        ",",
        "!",
        "?",
        "...",
        "…",
        "。",
        "，",
        "、",
        "「",
        "(",
        ")",
        "[",
        "|",
        "<",
        ">",
        "=",
        "+",
        "^",
        "~",
        "`",
        "$",
    ),
    *(
        "-",
        "_",
        "/",
        "//",
        "\\",
        "@",
        "#",
        "&",
        "*",
        "<=",
        "://",
        "“",
        "”",
        "—",
        "：",
        "€",
        "©",
        "😀",
        "👩‍💻",
        "🇩🇪",
    ),
    *(" ", " ", " ", "  ", "   ", "     ", " " * 9, "\t", "\n", "\n\n", "\r\n", " \n", "\n ", "\t\t"),
    *("\xa0", "\u3000", "\u2028", "\x85", "\u200b", "\u200d", "\ufe0f", "\x00"),
    *("<sentinel:0>", "IMGIMGAZ", "    x", "q" * 30, " " * 20),
)


@cache
def _samples() -> list[str]:
    rng = random.Random(0)
    return ["".join(rng.choices(_ATOMS, k=rng.choice((2, 3, 8, 30)))) for _ in range(600)]


def name_of_rule(backend: Tokenizer, add_bos: bool) -> str:
    """The name for `tokenizer.ggml.pre` of the first rule that splits texts as this byte-level BPE does.

    Rules for whole words that are tokens (`ignore_merges`) are told apart too, and of two that differ only in
    what they presume of BOS, the one is taken that presumes what is so. TokenizerError if there is none.
    """
    ignore_merges = bool(backend.model.ignore_merges)
    rules: dict[PreTokenizer, str] = {}
    for name, rule in PRE_TOKENIZERS.items():
        if rule.byte_level and rule.ignore_merges == ignore_merges:
            rules.setdefault(rule, name)
    for rule in sorted(rules, key=lambda rule: rule.add_bos != add_bos):
        if backend.pre_tokenizer is not None and _split_alike(backend.pre_tokenizer, rule):
            return rules[rule]
    raise TokenizerError(
        "none of the known rules splits texts as this tokenizer does, so tokenizer.ggml.pre cannot be told: "
        "name it, as in AutoTokenizer.from_pretrained(..., pre='llama-bpe')"
    )


def _split_alike(part: Any, rule: PreTokenizer) -> bool:
    mine = pre_tokenizers.Sequence(
        [
            *(pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in rule.splits),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return all(part.pre_tokenize_str(text) == mine.pre_tokenize_str(text) for text in _samples())
