r"""How the text of a BPE vocabulary is split before merging: one row for each `tokenizer.ggml.pre`.

A file states only the name of the rule. The names and what they stand for are facts of llama.cpp's
`llama-vocab.cpp` and of the `tokenizer.json` files that its converter recognizes. Where llama.cpp's regular
expressions only approximate the original tokenizer, this is the original:

- `(?i:'s|...)` also matches the long s (U+017F) as an s,
- upper and lower case in the rules of GPT-4o, Tekken, Youtu and Kimi-K2 are those of Unicode, not of ASCII,
- `\s` is any white space, also where a range of characters beside it contains some.

Some original tokenizers, as those of Qwen, GPT-NeoX and Cohere, also compose Unicode (NFC) first. A GGUF file
does not state that, and neither llama.cpp nor transformers does it for a GGUF file.
`replace(PRE_TOKENIZERS["qwen2"], nfc=True)` does.

Regular expressions have the syntax of Oniguruma, which the `tokenizers` library uses. Several are applied one
after the other, each to the pieces that the one before has left; what no match covers is a piece too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torchgguf.tokenization.errors import TokenizerError


@dataclass(frozen=True)
class PreTokenizer:
    """A rule for splitting text.

    Attributes:
        splits: the regular expressions.
        nfc: compose Unicode first.
        ignore_merges: a piece that is a token is one token, whatever the merges would make of it.
        byte_level: merges join bytes, each written as a printable character; else they join characters, and
            what is not a token becomes bytes.
        marks_spaces: write spaces as SentencePiece does.
        add_bos: texts begin with BOS unless the file states otherwise.
        always_adds_bos: texts begin with BOS, whatever the file states.
        add_sep: a text and its pair have a separator between them unless the file states otherwise.
    """

    splits: tuple[str, ...]
    nfc: bool = False
    ignore_merges: bool = False
    byte_level: bool = True
    marks_spaces: bool = False
    add_bos: bool = False
    always_adds_bos: bool = False
    add_sep: bool = False


# Parts that recur. A space or another separator belongs to the word that follows it.
_LINES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_SYMBOLS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"


def _cased(end: str, upper: str = _UPPER, lower: str = _LOWER) -> str:
    """Return a regular expression for a word whose capitals come first, with this end."""
    start = r"[^\r\n\p{L}\p{N}]?"
    return f"{start}{upper}*{lower}+{end}|{start}{upper}+{lower}*{end}"


_CASED_CONTRACTION = _cased(f"{_CONTRACTION}?")
_CASED_SYMBOLS = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"
_DIGIT = r"\p{N}"
_THREE_DIGITS = r"\p{N}{1,3}"
_GPT2_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
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

_GPT2 = PreTokenizer((_GPT2_WORDS,))
_STARCODER = PreTokenizer((_DIGIT, _GPT2_WORDS))
_LLAMA3 = PreTokenizer((f"{_CONTRACTION}|{_WORD}|{_THREE_DIGITS}|{_SYMBOLS}|{_LINES}",))
_QWEN2 = PreTokenizer((f"{_CONTRACTION}|{_WORD}|{_DIGIT}|{_SYMBOLS}|{_LINES}",))
_QWEN35 = PreTokenizer(
    (
        rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|{_DIGIT}"
        rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_LINES}",
    )
)
_GPT4O = PreTokenizer((f"{_CASED_CONTRACTION}|{_THREE_DIGITS}|{_CASED_SYMBOLS}|{_LINES}",))
_TEKKEN = PreTokenizer((f"{_cased('')}|{_DIGIT}|{_CASED_SYMBOLS}|{_LINES}",))
_BLOOM = PreTokenizer((" ?[^(\\s|.,!?…。，、।۔،)]+",))
_FALCON = PreTokenizer((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2_WORDS, "[0-9][0-9][0-9]"))
_DEFAULT = PreTokenizer((r"[\p{P}\$\+<=>\^~\|]+", _GPT2_WORDS, r"\p{N}+", "[0-9][0-9][0-9]"))
_DEEPSEEK_LLM = PreTokenizer(
    (
        r"[\r\n]",
        rf"\s?{_CASED_LETTER}+",
        r"\s?[!-/:-~！-／：-～‘-‟\u3000-。]+".replace(r"\u3000", "\u3000"),
        r"\s+$",
        _CJK_OR_HANGUL,
        r"\p{N}+",
    )
)
_DEEPSEEK_CODER = PreTokenizer((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CJK_OR_HANGUL, _DIGIT))
_DEEPSEEK3 = PreTokenizer((_THREE_DIGITS, _CJK, _DEEPSEEK_WORD))
_SPARK = PreTokenizer(
    (_THREE_DIGITS, _CJK, rf"{_MARKED_WORD}| ?[\p{{P}}\p{{S}}]+|[\r\n]|\s+(?!\S)|\s+", _DIGIT)
)
_YOUTU = PreTokenizer(
    (
        "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|" + _CJK,
        f"{_CASED_CONTRACTION}|{_DIGIT}|{_CASED_SYMBOLS}|{_LINES}",
    )
)
_AFMOE = PreTokenizer(
    (
        r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))",  # threes, counted from the right
        "[一-鿿㐀-䶿豈-\ufaff\u3040-ゟ゠-ヿ･-ﾟ⼀-\u2fdfเ-\u0e7f\u0e80-\u0effក-\u17ff"
        "က-႟ꩠ-ꩿꧠ-\ua9ff가-\ud7afᄀ-ᇿ]+",
        _DEEPSEEK_WORD,
    )
)
_CHAMELEON = PreTokenizer(
    (
        "<sentinel:[0-9]+>",
        "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
        r"([\t\n]|    |  )",
        _DIGIT,
        r"[\p{P}!-/:-@\[-`{-~]",
        _GPT2_WORDS,
    )
)
_UFAKZEKA = PreTokenizer((f"{_WORD}|{_DIGIT}|{_SYMBOLS}|{_LINES}",))
_LAGUNA = PreTokenizer((r"[^\n]+|[\n]+", *_QWEN2.splits))
_MINICPM5 = PreTokenizer((_THREE_DIGITS, rf"{_CONTRACTION}|{_WORD}|\p{{N}}+|{_SYMBOLS}|{_LINES}"))
_SEED_CODER = PreTokenizer((rf"{_CONTRACTION}|{_WORD}|{_DIGIT}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_LINES}",))
_BAILINGMOE = PreTokenizer(
    (rf"'(?i:[sdmt]|ll|ve|re)|{_WORD}|{_DIGIT}|{_SYMBOLS}|\s*[\r\n]|\s+(?!\S)|\s+",),
)
_EXAONE_MOE = PreTokenizer(
    (
        rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|{_DIGIT}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",
    )
)
_HALVING_SPACES = "".join(rf"|\s{{{n}}}(?!\S)" for n in (512, 256, 128, 64, 32, 16, 8, 4))
_JAIS2 = PreTokenizer(
    (
        rf"{_CONTRACTION}|{_WORD}|{_THREE_DIGITS}|{_SYMBOLS}|\s*[\r\n]+"
        rf"{_HALVING_SPACES}|\s{{1,2}}(?!\S)|\s",
    )
)
_TINY_AYA = PreTokenizer((r"\d{1,3}(?=(?:\d{3})*\b)", *_GPT4O.splits))
_VIKING = PreTokenizer((*_BLOOM.splits, _DIGIT))
_SUPERBPE = PreTokenizer((r"\p{N}+", r"(?=(\d{3})+(?!\d))"))
_NO_HAN = tuple(rf"[{letters}&&[^\p{{Han}}]]" for letters in (_UPPER, _LOWER))
_KIMI_WORD = rf"\p{{Han}}+|{_cased(f'{_CONTRACTION}?', *_NO_HAN)}"
_KIMI_K2 = PreTokenizer((f"{_KIMI_WORD}|{_THREE_DIGITS}|{_SYMBOLS}|{_LINES}",))
_BY_LINE = PreTokenizer((r"[^\n]+|\n+",), byte_level=False, marks_spaces=True)
_WHITESPACE = PreTokenizer((r"\S+",), byte_level=False)

# rule: its names in files, the first one for files that we write
_ROWS: dict[PreTokenizer, str] = {
    _DEFAULT: "default",
    _GPT2: "gpt-2 phi-2 gigachat a.x-4.0 mellum modern-bert mpt olmo jais exaone4 trillion granite-docling "
    "jina-es jina-de jina-v2-es jina-v2-de",
    replace(_GPT2, add_sep=True): "jina-v1-en jina-v2-code roberta-bpe",
    _STARCODER: "smollm starcoder refact command-r codeshell exaone minerva-7b mellum2",
    replace(_LLAMA3, ignore_merges=True, add_bos=True): "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral "
    "midm-2.0 lfm2 jina-v5-nano",
    _LLAMA3: "dbrx smaug-bpe chatglm-bpe",
    replace(_LLAMA3, ignore_merges=True): "glm4 glm5",
    _QWEN2: "qwen2 deepseek-r1-qwen f2llmv2 kormo megrez stablelm2 hunyuan solar-open grok-2",
    _QWEN35: "qwen35",
    _UFAKZEKA: "ufakzeka",
    _LAGUNA: "laguna",
    replace(_MINICPM5, ignore_merges=True): "minicpm5",
    _SEED_CODER: "seed-coder",
    _BAILINGMOE: "bailingmoe bailingmoe2 llada-moe",
    _EXAONE_MOE: "exaone-moe",
    _JAIS2: "jais-2",
    _GPT4O: "gpt-4o llama4 kanana2 talkie minimax-m2",
    replace(_GPT4O, ignore_merges=True): "granite-embed-multi-97m",
    _TINY_AYA: "tiny_aya cohere2moe",
    replace(_TEKKEN, ignore_merges=True, add_bos=True): "tekken",
    _BLOOM: "bloom poro-chat gpt3-finnish",
    _VIKING: "viking",
    _FALCON: "falcon",
    _SUPERBPE: "superbpe",
    _DEEPSEEK_LLM: "deepseek-llm",
    _DEEPSEEK_CODER: "deepseek-coder",
    _DEEPSEEK3: "deepseek-v3 hunyuan-dense joyai-llm hy_v4",
    _SPARK: "spark2_5",
    replace(_YOUTU, ignore_merges=True): "youtu",
    _AFMOE: "afmoe",
    replace(_CHAMELEON, add_bos=True): "chameleon",
    _KIMI_K2: "kimi-k2",
    replace(_BY_LINE, always_adds_bos=True): "gemma4 granite-embed-multi-311m",
    _BY_LINE: "sarvam-moe",
    _WHITESPACE: "whitespace",
}

PRE_TOKENIZERS: dict[str, PreTokenizer] = {
    name: rule for rule, names in _ROWS.items() for name in names.split()
}


def pre_tokenizer(name: str) -> PreTokenizer:
    """Return the rule of this name.

    Raises:
        TokenizerError: the table has no such rule.
    """
    try:
        return PRE_TOKENIZERS[name]
    except KeyError:
        raise TokenizerError(
            f"tokenizer.ggml.pre is {name!r}, an unknown rule; name one that splits text in the same way, "
            "as in AutoTokenizer.from_pretrained(..., pre='llama-bpe')"
        ) from None
