"""`GPT2Tokenizer`: GPT-2's tokenizer by its own name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, Self

from torchgguf.tokenization.kinds.pre_tokenizers import PRE_TOKENIZERS
from torchgguf.tokenization.loading import load
from torchgguf.tokenization.sources.files import TokenizerFiles
from torchgguf.tokenization.sources.huggingface import FileSource
from torchgguf.tokenization.sources.older_files import byte_level_pipeline
from torchgguf.tokenization.tokenizer import Tokenizer

_END = "<|endoftext|>"


class GPT2Tokenizer(Tokenizer):
    """GPT-2's byte-level BPE, from its vocab.json and merges.txt."""

    def __init__(
        self,
        vocab: str | PathLike[str] | Mapping[str, int],
        merges: str | PathLike[str] | Sequence[str | tuple[str, str]],
        errors: str = "replace",
        unk_token: str = _END,
        bos_token: str = _END,
        eos_token: str = _END,
        pad_token: str | None = None,
        add_prefix_space: bool = False,
        add_bos_token: bool = False,
        **options: Any,
    ) -> None:
        """Load the tokenizer. The special tokens are added to a vocabulary that lacks them.

        Args:
            vocab: the path of vocab.json, or the ids by token.
            merges: the path of merges.txt, or the merges in their order.
            errors: what bytes become that are not UTF-8, as in `bytes.decode`.
            unk_token: the unknown token.
            bos_token: the token that begins a text.
            eos_token: the token that ends a text.
            pad_token: the token for padding, if there is one.
            add_prefix_space: add a space before each text, so that its first word has the token that it has
                elsewhere.
            add_bos_token: add BOS before each text.
            options: others of `Tokenizer`.

        Raises:
            FileNotFoundError: a file is missing.
            TokenizerError: the vocabulary or the merges are invalid.
        """
        special = {"unk": unk_token, "bos": bos_token, "eos": eos_token}
        if pad_token is not None:
            special["pad"] = pad_token
        files = TokenizerFiles(
            byte_level_pipeline(vocab, merges, PRE_TOKENIZERS["gpt-2"]),
            config={"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": add_prefix_space},
        )
        source = FileSource(files, special=special)
        super().__init__(source, errors=errors, add_bos_token=add_bos_token, **options)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | PathLike[str],
        gguf_file: str | PathLike[str] | None = None,
        **options: Any,
    ) -> Self:
        """Load the tokenizer of a folder, repository or GGUF file; see `AutoTokenizer.from_pretrained`."""
        return load(cls, pretrained_model_name_or_path, gguf_file, options, "GPT2Tokenizer")


GPT2TokenizerFast = GPT2Tokenizer  # all are fast
