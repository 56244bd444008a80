"""Tokenizers built from GGUF metadata alone, and chat templates."""

from torchgguf.tokenization.auto import AutoTokenizer
from torchgguf.tokenization.batch import BatchEncoding
from torchgguf.tokenization.errors import ChatTemplateError, TokenizerError
from torchgguf.tokenization.pre_tokenizers import PRE_TOKENIZERS, PreTokenizer
from torchgguf.tokenization.streaming import StreamDecoder
from torchgguf.tokenization.tokenizer import Tokenizer

tokenizer_from_gguf = Tokenizer.from_gguf

__all__ = [
    "PRE_TOKENIZERS",
    "AutoTokenizer",
    "BatchEncoding",
    "ChatTemplateError",
    "PreTokenizer",
    "StreamDecoder",
    "Tokenizer",
    "TokenizerError",
    "tokenizer_from_gguf",
]
