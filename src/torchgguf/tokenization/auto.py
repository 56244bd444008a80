"""`AutoTokenizer`: the tokenizer that a path or a repository names."""

from __future__ import annotations

from os import PathLike
from typing import Any

from torchgguf.tokenization.loading import load
from torchgguf.tokenization.tokenizer import Tokenizer


class AutoTokenizer:
    """Loads the tokenizer of a model: `AutoTokenizer.from_pretrained(...)`."""

    def __init__(self) -> None:
        raise TypeError("AutoTokenizer has no instances: call AutoTokenizer.from_pretrained(...)")

    @staticmethod
    def from_pretrained(
        pretrained_model_name_or_path: str | PathLike[str],
        gguf_file: str | PathLike[str] | None = None,
        **options: Any,
    ) -> Tokenizer:
        """Load the tokenizer of a GGUF file, or of Hugging Face's files in a folder or repository.

        No code of a repository is ever run, and there is one kind of tokenizer, so `trust_remote_code` and
        `use_fast` change nothing.

        Args:
            pretrained_model_name_or_path: a GGUF file, a folder, or the name of a repository.
            gguf_file: the name of the GGUF file in its folder or repository.
            options: those of `Tokenizer` and `HubOptions`; special tokens such as `pad_token="<pad>"`, None
                for no such token, and lists of them as `extra_special_tokens`; and

                - `subfolder`: where in the folder or repository the files are;
                - `pre`: for a GGUF file, the splitting rule that replaces its own; for other files, the
                  rule's name to write into a GGUF file, where it is not found by trying;
                - `add_prefix_space`: whether to add a space before each text;
                - `tokenizer_type`: a model type such as "gpt2", whose tokenizer it is, and `config`: the
                  model's, which states it where no file does. Neither is for GGUF files, which state it.

                Other options of transformers are accepted where they ask for nothing special.

        Raises:
            FileNotFoundError: there is no such file, or no tokenizer in the folder.
            TokenizerError: the tokenizer is incomplete, contradicts itself, or is unsupported.
            TypeError, ValueError: an option is unknown, or asks for something that is not supported.
            PermissionError, ConnectionError: as `torchgguf.hub.find_file` raises them.
        """
        return load(Tokenizer, pretrained_model_name_or_path, gguf_file, options)
