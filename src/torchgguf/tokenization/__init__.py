"""Tokenizers from GGUF files and from Hugging Face's files, and chat templates."""

from torchgguf.tokenization.auto import AutoTokenizer
from torchgguf.tokenization.encoding.batch_encoding import BatchEncoding
from torchgguf.tokenization.encoding.streaming import StreamDecoder
from torchgguf.tokenization.errors import ChatTemplateError, TokenizerError
from torchgguf.tokenization.gpt2 import GPT2Tokenizer, GPT2TokenizerFast
from torchgguf.tokenization.kinds.pre_tokenizers import PRE_TOKENIZERS, PreTokenizer
from torchgguf.tokenization.tokenizer import Tokenizer

tokenizer_from_gguf = Tokenizer.from_gguf

__all__ = [
    "PRE_TOKENIZERS",
    "AutoTokenizer",
    "BatchEncoding",
    "ChatTemplateError",
    "GPT2Tokenizer",
    "GPT2TokenizerFast",
    "PreTokenizer",
    "StreamDecoder",
    "Tokenizer",
    "TokenizerError",
    "tokenizer_from_gguf",
]
