"""`Tokenizer`: the tokenizer of any file, by its path, its repository or its contents."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any, Self

from tokenizers import Tokenizer as Backend

from torchgguf.tokenization.base import LISTS, ROLE_NAMES, TokenizerBase
from torchgguf.tokenization.kinds.library import library_errors
from torchgguf.tokenization.loading import load
from torchgguf.tokenization.sources.files import PIPELINE, TokenizerFiles, read_pipeline
from torchgguf.tokenization.sources.huggingface import FileSource
from torchgguf.tokenization.sources.source import TokenizerSource


class Tokenizer(TokenizerBase):
    """A tokenizer with the interface of transformers' tokenizers; see `from_gguf` and `AutoTokenizer`.

    It consists of parts, which document its methods: `TokenTable`, `Surroundings`, `Encoder`, `TokenDecoder`
    and `ChatTemplates`. Copies and pickles are independent of the original.

    Attributes:
        add_bos_token, add_eos_token: whether each text gets BOS and EOS; setting one replaces whatever else
            the tokenizer adds around texts.
        roles: the ids by role, which `bos_token_id`, `bos_token` and so on read and set.
        name_or_path: the argument of `from_pretrained`.
    """

    def __init__(
        self,
        source: TokenizerSource | None = None,
        *,
        tokenizer_file: str | PathLike[str] | None = None,
        tokenizer_object: Backend | None = None,
        **options: Any,
    ) -> None:
        """Load a tokenizer from its source, from a tokenizer.json or from a tokenizer of the library.

        Args:
            source: the source.
            tokenizer_file: the path of a tokenizer.json.
            tokenizer_object: a tokenizer of the `tokenizers` library.
            options: attributes, which replace those that the source states; with a file or an object also
                special tokens, such as `pad_token="<pad>"`.

        Raises:
            FileNotFoundError: there is no such file.
            TokenizerError: the source describes no tokenizer, or one that is unsupported.
            TypeError: there is not one source, or an option is unknown.
            ValueError: a side is invalid.
        """
        if [source, tokenizer_file, tokenizer_object].count(None) != 2:
            raise TypeError("pass one of source, tokenizer_file and tokenizer_object")
        if source is None:
            roles = {name.removesuffix("_token"): options.pop(name) for name in ROLE_NAMES if name in options}
            lists = {name: options.pop(name) for name in LISTS if name in options}
            if tokenizer_file is not None:
                text = read_pipeline(Path(tokenizer_file))
            else:
                with library_errors("tokenizer_object is unsupported"):
                    text = tokenizer_object.to_str()  # type: ignore[union-attr]
            special = {role: str(token) for role, token in roles.items() if token is not None}
            source = FileSource(TokenizerFiles(text, config=lists), special=special)
        super().__init__(source, **options)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | PathLike[str],
        gguf_file: str | PathLike[str] | None = None,
        **options: Any,
    ) -> Self:
        """Load the tokenizer of a folder, repository or GGUF file; see `AutoTokenizer.from_pretrained`."""
        return load(cls, pretrained_model_name_or_path, gguf_file, options)

    @property
    def init_kwargs(self) -> dict[str, Any]:
        """The entries of the tokenizer_config.json that it was loaded from."""
        return dict(self.source.config)

    @property
    def add_prefix_space(self) -> bool:
        """Whether its files ask for a space before each text."""
        return bool(self.source.config.get("add_prefix_space", False))

    @property
    def backend_tokenizer(self) -> Backend:
        """The same tokenizer as one of the `tokenizers` library: a copy, made anew at each use."""
        return Backend.from_str(self.file_contents()[PIPELINE])

    @property
    def decoder(self) -> Any:
        """The decoder of `backend_tokenizer`."""
        return self._tokens.model.backend.decoder


tokenizer_from_gguf = Tokenizer.from_gguf
