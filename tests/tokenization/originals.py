"""How the tokenizer.json of published models splits texts, by the name that GGUF has for that.

These are the regular expressions that llama.cpp's source quotes as "original regex from tokenizer.json", and
parts of the library that split by themselves.
"""

from collections.abc import Sequence

from tokenizers import Regex, pre_tokenizers
from tokenizers.pre_tokenizers import ByteLevel, Digits, PreTokenizer, Punctuation, Split

from torchgguf.tokenization import PRE_TOKENIZERS

_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+%s"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*%s"
)
_LLAMA3 = (
    _CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace("{1,3}", "")
_GPT4O = (
    _CASED.replace("%s", _CONTRACTION + "?")
    + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_DEEPSEEK = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
_CJK = Split(Regex("[一-龥\u3040-ゟ゠-ヿ]+"), "isolated")
_THREES = Split(Regex(r"\p{N}{1,3}"), "isolated")
_GPT2 = ByteLevel(add_prefix_space=False)
_BYTES = ByteLevel(add_prefix_space=False, use_regex=False)


def _steps(*steps: str | PreTokenizer, last: PreTokenizer = _BYTES) -> PreTokenizer:
    splits = [Split(Regex(step), "isolated") if isinstance(step, str) else step for step in steps]
    return pre_tokenizers.Sequence([*splits, last])


def _tiktoken(pattern: str) -> PreTokenizer:
    """As tokenizers are written that were tiktoken's."""
    return pre_tokenizers.Sequence([Split(Regex(pattern), "removed", invert=True), _BYTES])


ORIGINALS: dict[str, Sequence[PreTokenizer]] = {
    "gpt-2": [_GPT2],
    "smollm": [_steps(Digits(individual_digits=True), last=_GPT2)],
    "llama-bpe": [_steps(_LLAMA3), _tiktoken(_LLAMA3)],
    "qwen2": [_steps(_QWEN2), _tiktoken(_QWEN2)],
    "qwen35": [
        _steps(
            _CONTRACTION + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+"
            r"|\s+(?!\S)|\s+"
        )
    ],
    "gpt-4o": [_steps(_GPT4O), _tiktoken(_GPT4O)],
    "tekken": [
        _steps(_CASED.replace("%s", "") + r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    ],
    "tiny_aya": [_steps(r"\d{1,3}(?=(?:\d{3})*\b)", _GPT4O)],
    "bloom": [_steps(" ?[^(\\s|[.,!?…。，、।۔،])]+")],
    "viking": [_steps(" ?[^(\\s|[.,!?…。，、।۔،])]+", Digits(individual_digits=True))],
    "falcon": [
        pre_tokenizers.Sequence(
            [Punctuation("contiguous"), _GPT2, Digits(), Split(Regex("[0-9][0-9][0-9]"), "isolated")]
        )
    ],
    "deepseek-llm": [
        _steps(
            r"[\r\n]",
            PRE_TOKENIZERS["deepseek-llm"].splits[1],  # a long list of letters
            "\\s?[!-/:-~！-／：-～‘-‟\u3000-。]+",
            r"\s+$",
            "[一-龥ࠀ-一가-\ud7ff]+",
            Digits(individual_digits=True),
        )
    ],
    "deepseek-coder": [
        _steps(r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-\ud7ff]+", Digits(individual_digits=True))
    ],
    "deepseek-v3": [_steps(_THREES, _CJK, _DEEPSEEK + r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")],
    "chameleon": [
        _steps(
            "<sentinel:[0-9]+>",
            "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
            r"([\t\n]|    |  )",
            Digits(individual_digits=True),
            Punctuation("isolated"),
            last=_GPT2,
        )
    ],
    "jais-2": [
        _steps(
            _LLAMA3.removesuffix(r"|\s+(?!\S)|\s+")
            + "".join(rf"|\s{{{n}}}(?!\S)" for n in (512, 256, 128, 64, 32, 16, 8, 4))
            + r"|\s{1,2}(?!\S)|\s{1}"
        )
    ],
    "superbpe": [_steps(r"\p{N}+", Split(Regex(r"(?=(\d{3})+(?!\d))"), "merged_with_next"))],
    "bailingmoe": [
        _steps(
            r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]"
            r"|\s+(?!\S)|\s+"
        )
    ],
    "seed-coder": [
        _steps(
            _CONTRACTION + "|[^\r\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\r\n]+|\\s*[\r\n]+"
            r"|\s+(?!\S)|\s+"
        )
    ],
    "exaone-moe": [
        _steps(
            _CONTRACTION + r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}"
            r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
        )
    ],
    "minicpm5": [_steps(_THREES, _LLAMA3.replace("{1,3}", "+"))],
    "kimi-k2": [
        _tiktoken(
            r"[\p{Han}]+"
            r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+"
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
            r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*"
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
            r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        )
    ],
}
