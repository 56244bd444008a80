"""Opening the source of a tokenizer that is in Hugging Face's files, of whatever age."""

from __future__ import annotations

from collections.abc import Mapping

from torchgguf.tokenization.sources.files import TokenizerFiles
from torchgguf.tokenization.sources.huggingface import FileSource
from torchgguf.tokenization.sources.older_files import byte_level_files, pieces_source
from torchgguf.tokenization.sources.source import TokenizerSource


def open_tokenizer_source(
    files: TokenizerFiles,
    pre: str | None = None,
    special: Mapping[str, str] | None = None,
    add_prefix_space: bool | None = None,
) -> TokenizerSource:
    """Return the source for a tokenizer's files: tokenizer.json, else tokenizer.model, else vocab.json.

    Args:
        files: the files.
        pre: GGUF's name for the rule by which texts are split, if it is not to be found by trying.
        special: the tokens by role that replace those of the files.
        add_prefix_space: whether a space is added before texts, in place of what the files state.

    Raises:
        TokenizerError: a file is invalid, or the files do not state enough.
        ImportError: tokenizer.model needs the package protobuf, which is missing.
    """
    special = special or {}
    if files.pipeline is not None:
        return FileSource(files, pre, special, add_prefix_space)
    if files.pieces is not None:
        return pieces_source(files, files.pieces, pre, special, add_prefix_space)
    return FileSource(byte_level_files(files), pre, special, add_prefix_space, made=True)
