r"""How the text of a BPE vocabulary is cut before merging: one row for each `tokenizer.ggml.pre`.

A file states only the name of the rule. The names and what they stand for are facts of llama.cpp's
`llama-vocab.cpp` and of the `tokenizer.json` files that its converter recognizes. Where llama.cpp's regular
expressions only approximate the original tokenizer, this is the original:

- `(?i:'s|...)` also takes the long s (U+017F) for an s,
- upper and lower case in `GPT4O`, `TEKKEN`, `YOUTU` and `KIMI_K2` are those of Unicode, not those of ASCII,
- `\s` is any white space, also where a range of characters beside it holds some.

Some original tokenizers, as those of Qwen, GPT-NeoX and Cohere, also compose Unicode (NFC) first. A GGUF file
does not say so, and neither llama.cpp nor transformers do it for a GGUF file.
`replace(PRE_TOKENIZERS["qwen2"], nfc=True)` does.

A regular expression is in the syntax of Oniguruma, which the `tokenizers` library uses. Several are applied
one after the other, each to the pieces that the one before has left; what no match covers is a piece too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torchgguf.tokenization.errors import TokenizerError


@dataclass(frozen=True)
class PreTokenizer:
    """`splits`: the regular expressions. `nfc`: Unicode is composed before all else.

    `ignore_merges`: a piece that is a token is taken whole, whatever the merges would make of it.
    `byte_level`: merges join bytes, each written as a printable character; else they join characters, and
    what is no token becomes bytes. `marks_spaces`: spaces are written as SentencePiece writes them.
    `add_bos`: a text begins with BOS unless the file says otherwise; `always_adds_bos`: whatever it says.
    `add_sep`: a text and its pair have a separator between them unless the file says otherwise.
    """

    splits: tuple[str, ...]
    nfc: bool = False
    ignore_merges: bool = False
    byte_level: bool = True
    marks_spaces: bool = False
    add_bos: bool = False
    always_adds_bos: bool = False
    add_sep: bool = False


# Parts that recur. A space or another separator sticks to the word that follows it.
_LINES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_SYMBOLS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"


def _cased(end: str, upper: str = _UPPER, lower: str = _LOWER) -> str:
    """A word whose capitals come first, with the given end."""
    start = r"[^\r\n\p{L}\p{N}]?"
    return f"{start}{upper}*{lower}+{end}|{start}{upper}+{lower}*{end}"


_CASED_CONTRACTION = _cased(f"{_CONTRACTION}?")
_CASED_SYMBOLS = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"
_DIGIT = r"\p{N}"
_THREE_DIGITS = r"\p{N}{1,3}"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_ASCII_PUNCTUATION = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"""
_MARKED_WORD = rf"{_ASCII_PUNCTUATION}[A-Za-z]+|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+"
_DEEPSEEK_WORD = rf"{_MARKED_WORD}| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_LINES}"
_CJK = "[一-龥\u3040-ゟ゠-ヿ]+"
_CJK_OR_HANGUL = "[一-龥ࠀ-一가-\ud7ff]+"
# Letters with case, as some version of Unicode had them.
_CASED_LETTER = (
    "["
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ"
    "-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ"
    "-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"
    "]"
)

GPT2 = PreTokenizer((_GPT2,))
STARCODER = PreTokenizer((_DIGIT, _GPT2))
LLAMA3 = PreTokenizer((f"{_CONTRACTION}|{_WORD}|{_THREE_DIGITS}|{_SYMBOLS}|{_LINES}",))
QWEN2 = PreTokenizer((f"{_CONTRACTION}|{_WORD}|{_DIGIT}|{_SYMBOLS}|{_LINES}",))
QWEN35 = PreTokenizer(
    (
        rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|{_DIGIT}"
        rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_LINES}",
    )
)
GPT4O = PreTokenizer((f"{_CASED_CONTRACTION}|{_THREE_DIGITS}|{_CASED_SYMBOLS}|{_LINES}",))
TEKKEN = PreTokenizer((f"{_cased('')}|{_DIGIT}|{_CASED_SYMBOLS}|{_LINES}",))
BLOOM = PreTokenizer((" ?[^(\\s|.,!?…。，、।۔،)]+",))
FALCON = PreTokenizer((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]"))
DEFAULT = PreTokenizer((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"))
DEEPSEEK_LLM = PreTokenizer(
    (
        r"[\r\n]",
        rf"\s?{_CASED_LETTER}+",
        r"\s?[!-/:-~！-／：-～‘-‟\u3000-。]+".replace(r"\u3000", "\u3000"),
        r"\s+$",
        _CJK_OR_HANGUL,
        r"\p{N}+",
    )
)
DEEPSEEK_CODER = PreTokenizer((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CJK_OR_HANGUL, _DIGIT))
DEEPSEEK3 = PreTokenizer((_THREE_DIGITS, _CJK, _DEEPSEEK_WORD))
SPARK = PreTokenizer(
    (_THREE_DIGITS, _CJK, rf"{_MARKED_WORD}| ?[\p{{P}}\p{{S}}]+|[\r\n]|\s+(?!\S)|\s+", _DIGIT)
)
YOUTU = PreTokenizer(
    (
        "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|" + _CJK,
        f"{_CASED_CONTRACTION}|{_DIGIT}|{_CASED_SYMBOLS}|{_LINES}",
    )
)
AFMOE = PreTokenizer(
    (
        r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))",  # threes, counted from the right
        "[一-鿿㐀-䶿豈-\ufaff\u3040-ゟ゠-ヿ･-ﾟ⼀-\u2fdfเ-\u0e7f\u0e80-\u0effក-\u17ff"
        "က-႟ꩠ-ꩿꧠ-\ua9ff가-\ud7afᄀ-ᇿ]+",
        _DEEPSEEK_WORD,
    )
)
CHAMELEON = PreTokenizer(
    (
        "<sentinel:[0-9]+>",
        "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
        r"([\t\n]|    |  )",
        _DIGIT,
        r"[\p{P}!-/:-@\[-`{-~]",
        _GPT2,
    )
)
UFAKZEKA = PreTokenizer((f"{_WORD}|{_DIGIT}|{_SYMBOLS}|{_LINES}",))
LAGUNA = PreTokenizer((r"[^\n]+|[\n]+", *QWEN2.splits))
MINICPM5 = PreTokenizer((_THREE_DIGITS, rf"{_CONTRACTION}|{_WORD}|\p{{N}}+|{_SYMBOLS}|{_LINES}"))
SEED_CODER = PreTokenizer((rf"{_CONTRACTION}|{_WORD}|{_DIGIT}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_LINES}",))
BAILINGMOE = PreTokenizer(
    (rf"'(?i:[sdmt]|ll|ve|re)|{_WORD}|{_DIGIT}|{_SYMBOLS}|\s*[\r\n]|\s+(?!\S)|\s+",),
)
EXAONE_MOE = PreTokenizer(
    (
        rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|{_DIGIT}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",
    )
)
_HALVING_SPACES = "".join(rf"|\s{{{n}}}(?!\S)" for n in (512, 256, 128, 64, 32, 16, 8, 4))
JAIS2 = PreTokenizer(
    (
        rf"{_CONTRACTION}|{_WORD}|{_THREE_DIGITS}|{_SYMBOLS}|\s*[\r\n]+"
        rf"{_HALVING_SPACES}|\s{{1,2}}(?!\S)|\s",
    )
)
TINY_AYA = PreTokenizer((r"\d{1,3}(?=(?:\d{3})*\b)", *GPT4O.splits))
VIKING = PreTokenizer((*BLOOM.splits, _DIGIT))
SUPERBPE = PreTokenizer((r"\p{N}+", r"(?=(\d{3})+(?!\d))"))
_NO_HAN = tuple(rf"[{letters}&&[^\p{{Han}}]]" for letters in (_UPPER, _LOWER))
_KIMI_WORD = rf"\p{{Han}}+|{_cased(f'{_CONTRACTION}?', *_NO_HAN)}"
KIMI_K2 = PreTokenizer((f"{_KIMI_WORD}|{_THREE_DIGITS}|{_SYMBOLS}|{_LINES}",))
LINES = PreTokenizer((r"[^\n]+|\n+",), byte_level=False, marks_spaces=True)
WHITESPACE = PreTokenizer((r"\S+",), byte_level=False)

# rule: the names that files have for it, the first one for files that we make
_ROWS: dict[PreTokenizer, str] = {
    DEFAULT: "default",
    GPT2: "gpt-2 phi-2 gigachat a.x-4.0 mellum modern-bert mpt olmo jais exaone4 trillion granite-docling "
    "jina-es jina-de jina-v2-es jina-v2-de",
    replace(GPT2, add_sep=True): "jina-v1-en jina-v2-code roberta-bpe",
    STARCODER: "smollm starcoder refact command-r codeshell exaone minerva-7b mellum2",
    replace(LLAMA3, ignore_merges=True, add_bos=True): "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral "
    "midm-2.0 lfm2 jina-v5-nano",
    LLAMA3: "dbrx smaug-bpe chatglm-bpe",
    replace(LLAMA3, ignore_merges=True): "glm4 glm5",
    QWEN2: "qwen2 deepseek-r1-qwen f2llmv2 kormo megrez stablelm2 hunyuan solar-open grok-2",
    QWEN35: "qwen35",
    UFAKZEKA: "ufakzeka",
    LAGUNA: "laguna",
    replace(MINICPM5, ignore_merges=True): "minicpm5",
    SEED_CODER: "seed-coder",
    BAILINGMOE: "bailingmoe bailingmoe2 llada-moe",
    EXAONE_MOE: "exaone-moe",
    JAIS2: "jais-2",
    GPT4O: "gpt-4o llama4 kanana2 talkie minimax-m2",
    replace(GPT4O, ignore_merges=True): "granite-embed-multi-97m",
    TINY_AYA: "tiny_aya cohere2moe",
    replace(TEKKEN, ignore_merges=True, add_bos=True): "tekken",
    BLOOM: "bloom poro-chat gpt3-finnish",
    VIKING: "viking",
    FALCON: "falcon",
    SUPERBPE: "superbpe",
    DEEPSEEK_LLM: "deepseek-llm",
    DEEPSEEK_CODER: "deepseek-coder",
    DEEPSEEK3: "deepseek-v3 hunyuan-dense joyai-llm hy_v4",
    SPARK: "spark2_5",
    replace(YOUTU, ignore_merges=True): "youtu",
    AFMOE: "afmoe",
    replace(CHAMELEON, add_bos=True): "chameleon",
    KIMI_K2: "kimi-k2",
    replace(LINES, always_adds_bos=True): "gemma4 granite-embed-multi-311m",
    LINES: "sarvam-moe",
    WHITESPACE: "whitespace",
}

PRE_TOKENIZERS: dict[str, PreTokenizer] = {
    name: rule for rule, names in _ROWS.items() for name in names.split()
}


def pre_tokenizer(name: str) -> PreTokenizer:
    """The rule of this name. TokenizerError if it is not in the table."""
    try:
        return PRE_TOKENIZERS[name]
    except KeyError:
        raise TokenizerError(
            f"tokenizer.ggml.pre is {name!r}, a rule that is not known; name one that splits text alike, "
            "as in AutoTokenizer.from_pretrained(..., pre='llama-bpe')"
        ) from None
