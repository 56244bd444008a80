"""What a file may say of a vocabulary, one thing at a time: llama.cpp's ids, whatever it is."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from tests.tokenization.folders import byte_level, pieces, proto
from tests.tokenization.oracles import LlamaCpp, hard_texts, unequal, with_tiny_model
from torchgguf.tokenization import Tokenizer

PREFIX = "tokenizer.ggml."
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED = 1, 2, 3, 4, 5


def _bytes() -> dict[str, Any]:
    """A byte-level BPE with an end."""
    model = json.loads(byte_level("gpt-2").to_str())["model"]
    size = len(model["vocab"])
    return {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": [*model["vocab"], "<|endoftext|>"],
        "token_type": [NORMAL] * size + [CONTROL],
        "merges": [" ".join(merge) for merge in model["merges"]],
        "bos_token_id": size,
        "eos_token_id": size,
    }


def _pieces() -> dict[str, Any]:
    """SentencePiece's BPE."""
    model = proto(pieces())
    return {
        "model": "llama",
        "tokens": [piece.piece for piece in model.pieces],
        "token_type": [piece.type for piece in model.pieces],
        "scores": [piece.score for piece in model.pieces],
    }


@pytest.fixture(scope="module")
def bases() -> dict[str, dict[str, Any]]:
    return {"bytes": _bytes(), "pieces": _pieces()}


# More tokens with their types, or tokens with other types than they have.
ADDED: dict[str, dict[str, int]] = {
    "user-defined": {"<tool>": USER_DEFINED},
    "with spaces": {"  ": USER_DEFINED, "   ": USER_DEFINED, "hello world": USER_DEFINED},
    "within each other": {"<a": USER_DEFINED, "<a>": CONTROL, "<a><a>": USER_DEFINED},
    "control": {"<tool>": CONTROL, "<unk>": UNKNOWN},
    "unused": {"[PAD401]": UNUSED, "the": UNUSED, "hello": 0},
    "empty": {"": NORMAL},
    "by their texts": {"<fim_prefix>": NORMAL, "<|im_end|>": NORMAL, "<|eom_id|>": NORMAL},
    "not the end": {"</s>": CONTROL, "<|tool_response>": CONTROL},
    "harmony": dict.fromkeys(("<|return|>", "<|call|>", "<|end|>", "<|start|>"), CONTROL),
}
RETYPED = {
    "bytes": {"user-defined": {"you": USER_DEFINED, "Ġthe": USER_DEFINED}, "control": {"or": CONTROL}},
    "pieces": {"user-defined": {"▁the": USER_DEFINED, "er": USER_DEFINED}, "control": {"or": CONTROL}},
}
TEXTS = [
    *(
        "<tool>x",
        "a <tool>  b",
        "hello world",
        "  hello\n   world",
        "<a><a>",
        "x<<a>>",
        "[PAD401]the",
        "[EMPTY_401]",
    ),
    *("<fim_prefix>a<|im_end|></s>", "<|eom_id|> x", "</s><|tool_response>", "<|end|><|start|>a<|return|>"),
    *("you or the your", "▁the  you", "<unk> <s>", "\n\n", ""),
]


def _assert_equal(metadata: dict[str, Any], tmp_path: Path) -> None:
    stated = {PREFIX + key: value for key, value in metadata.items()}
    tokenizer = Tokenizer.from_gguf(stated)
    oracle = LlamaCpp(with_tiny_model(stated, tmp_path / "tiny.gguf"))
    special = list(tokenizer.get_added_vocab())
    assert not unequal(tokenizer, oracle, [*TEXTS, *hard_texts(300, special, seed=71)])
    for text in ("Hello", "", " x"):
        assert tokenizer.encode(text) == oracle.encode_with_special(text)


@pytest.mark.parametrize("base", ["bytes", "pieces"])
@pytest.mark.parametrize("name", ADDED)
def test_more_tokens(name: str, base: str, bases: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    metadata = {key: list(value) if isinstance(value, list) else value for key, value in bases[base].items()}
    for token, kind in ADDED[name].items():
        if token in metadata["tokens"]:
            metadata["token_type"][metadata["tokens"].index(token)] = kind
            continue
        metadata["tokens"].append(token)
        metadata["token_type"].append(kind)
        if "scores" in metadata:
            metadata["scores"].append(-1000.0)
    _assert_equal(metadata, tmp_path)


@pytest.mark.parametrize("base", RETYPED)
@pytest.mark.parametrize("name", ["user-defined", "control"])
def test_tokens_of_other_types(
    name: str, base: str, bases: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    types = RETYPED[base][name]
    assert types.keys() <= {*bases[base]["tokens"]}
    kinds = zip(bases[base]["tokens"], bases[base]["token_type"], strict=True)
    _assert_equal(bases[base] | {"token_type": [types.get(token, kind) for token, kind in kinds]}, tmp_path)


@pytest.mark.parametrize("base", ["bytes", "pieces"])
@pytest.mark.parametrize("adds", list(itertools.product((None, True, False), repeat=2)), ids=str)
def test_flags(
    adds: tuple[bool | None, bool | None], base: str, bases: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    flags = dict(zip(("add_bos_token", "add_eos_token"), adds, strict=True))
    stated = {name: flag for name, flag in flags.items() if flag is not None}
    _assert_equal(bases[base] | stated, tmp_path)


@pytest.mark.parametrize("base", ["bytes", "pieces"])
@pytest.mark.parametrize("prefix", [False, True])
def test_a_leading_space(prefix: bool, base: str, bases: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    _assert_equal(bases[base] | {"add_space_prefix": prefix}, tmp_path)


@pytest.mark.parametrize("lacking", ["token_type", "bos_token_id", "pre"])
@pytest.mark.filterwarnings("ignore:tokenizer.ggml.pre is missing")
def test_what_is_lacking(lacking: str, bases: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    for base in ("bytes", "pieces"):
        _assert_equal({key: value for key, value in bases[base].items() if key != lacking}, tmp_path)


def test_scores_that_are_all_the_same(bases: dict[str, dict[str, Any]]) -> None:
    stated = bases["pieces"] | {"scores": [-1000.0] * len(bases["pieces"]["tokens"])}
    with pytest.warns(UserWarning, match=r"tokenizer\.ggml\.scores are all the same"):
        Tokenizer.from_gguf({PREFIX + key: value for key, value in stated.items()})


# Which tokens swallow white space, as llama.cpp concludes from names.
@pytest.mark.parametrize(
    ("token", "names"),
    [
        ("<mask>", {"pre": "jina-v2-de"}),
        ("<mask>", {"pre": "jina-v2-es"}),
        ("<mask>", {"pre": "jina-v2-code"}),
        ("<mask>", {"pre": "jina-de"}),
        ("[MASK]", {"pre": "modern-bert", "general.name": "My Modern-BERT"}),
        ("</s>", {"general.name": "Phi-3 mini"}),
        ("</s>", {"general.name": "my phi3"}),
        ("</s>", {"general.name": "phi 3"}),
    ],
    ids=str,
)
def test_white_space_beside_tokens(
    token: str, names: dict[str, str], bases: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    base, more = bases["bytes"], list(dict.fromkeys(("<unk>", "<s>", "</s>", token)))
    stated = base | {
        "tokens": base["tokens"] + more,
        "token_type": base["token_type"] + [CONTROL] * len(more),
    }
    stated |= {key: value for key, value in names.items() if "." not in key}
    metadata = {PREFIX + key: value for key, value in stated.items()}
    metadata |= {key: value for key, value in names.items() if "." in key}
    oracle = LlamaCpp(with_tiny_model(metadata, tmp_path / "tiny.gguf"))
    texts = [f"a {token} b", f"a  {token}", f"{token}  x", f"a\n{token}\n\n{token}<|endoftext|>  .", "<s>  x"]
    assert not unequal(Tokenizer.from_gguf(metadata), oracle, texts)
