"""The tokenizers under test, and transformers' for the same files. Each is made once."""

from typing import Any

import pytest

from tests.support import QWEN2, SMOLLM2, VOCABS
from torchgguf.tokenization import Tokenizer


def _transformers(path: Any) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)


@pytest.fixture(scope="session")
def smollm2() -> Tokenizer:
    """SmolLM2's: byte-level BPE, digits apart, some bytes missing."""
    return Tokenizer.from_gguf(SMOLLM2)


@pytest.fixture(scope="session")
def qwen2() -> Tokenizer:
    """Qwen2's: byte-level BPE, composed Unicode, a template with tools."""
    return Tokenizer.from_gguf(QWEN2)


@pytest.fixture(scope="session")
def qwen2_vocabulary() -> Tokenizer:
    """Qwen2's vocabulary without the model."""
    return Tokenizer.from_gguf(VOCABS / "ggml-vocab-qwen2.gguf")


@pytest.fixture(scope="session")
def llama() -> Tokenizer:
    """Llama 2's: SentencePiece with byte fallback."""
    return Tokenizer.from_gguf(VOCABS / "ggml-vocab-llama-spm.gguf")


@pytest.fixture(scope="session")
def transformers_smollm2() -> Any:
    """The tokenizer of transformers for the same file."""
    return _transformers(SMOLLM2)


@pytest.fixture(scope="session")
def transformers_qwen2() -> Any:
    """The tokenizer of transformers for the same file. It takes a quarter of a minute."""
    return _transformers(QWEN2)
