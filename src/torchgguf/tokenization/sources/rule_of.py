"""GGUF's name for the rule by which a tokenizer splits texts, found by trying the rules on samples."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from tokenizers.models import Model

from torchgguf.tokenization.errors import TokenizerError
from torchgguf.tokenization.kinds.bpe import spell_byte_level
from torchgguf.tokenization.kinds.pre_tokenizers import PRE_TOKENIZERS, PreTokenizer

# All that some rule treats unlike others: letters of each kind, marks, digits, symbols, white space.
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
    """Return the name for `tokenizer.ggml.pre` of the first rule that splits texts as a byte-level BPE does.

    If there is none, it is the first by which the vocabulary yields the same tokens: some tokenizers split
    what no merge would ever join. Rules with `ignore_merges` differ from those without, and of two that
    differ only in their default for BOS, the one that fits is returned.

    Args:
        backend: the tokenizer.
        add_bos: whether it adds BOS before texts.

    Raises:
        TokenizerError: no rule fits.
    """
    rules: dict[PreTokenizer, str] = {}
    for name, rule in PRE_TOKENIZERS.items():
        if rule.byte_level:
            rules.setdefault(rule, name)
    order = sorted(rules, key=lambda rule: rule.add_bos != add_bos)
    own = bool(backend.model.ignore_merges)
    for rule in order:
        if rule.ignore_merges == own and _split_alike(backend.pre_tokenizer, _splitter(rule)):
            return rules[rule]
    texts = [*_samples(), *_own_texts(backend)]
    expected = _ids(backend.model, backend.pre_tokenizer, texts)
    for ignore_merges in (own, not own):
        model = backend.model if ignore_merges == own else _other(backend.model)
        for rule in order:
            if rule.ignore_merges == ignore_merges and _ids(model, _splitter(rule), texts) == expected:
                return rules[rule]
    raise TokenizerError(
        "no known rule splits texts as this tokenizer does, so tokenizer.ggml.pre is unknown: "
        "name it, as in from_pretrained(..., pre='llama-bpe') or torchgguf convert --pre llama-bpe"
    )


def _splitter(rule: PreTokenizer) -> pre_tokenizers.PreTokenizer:
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in rule.splits]
    return pre_tokenizers.Sequence(
        [*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )


def _split_alike(one: Any, other: pre_tokenizers.PreTokenizer) -> bool:
    return one is not None and all(
        one.pre_tokenize_str(text) == other.pre_tokenize_str(text) for text in _samples()
    )


def _ids(model: Model, splitter: Any, texts: list[str]) -> list[list[int]]:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = splitter
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


def _own_texts(backend: Tokenizer) -> list[str]:
    """Return about 3,000 of the vocabulary's tokens as text, and pairs of them."""
    tokens = sorted(backend.get_vocab(with_added_tokens=False))
    texts = [spell_byte_level(token).decode(errors="ignore") for token in tokens[:: len(tokens) // 3000 + 1]]
    others = random.Random(0).sample(texts, len(texts))
    return texts + [text + other for text, other in zip(texts, others, strict=True)]


def _other(model: Any) -> Model:
    """Return the same BPE with the opposite of `ignore_merges`."""
    other = models.BPE()
    other.__setstate__(model.__getstate__())
    other.ignore_merges = not model.ignore_merges
    return other
