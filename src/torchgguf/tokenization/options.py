"""The options of `from_pretrained` of a tokenizer, sorted: where it is, how to read it, what to set."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from tokenizers import AddedToken

from torchgguf.compat import rename_option, split_options
from torchgguf.hub import HubOptions
from torchgguf.tokenization.base import SETTINGS
from torchgguf.tokenization.encoding.encoder import Encoder
from torchgguf.tokenization.kinds.pre_tokenizers import PreTokenizer
from torchgguf.tokenization.sources.declared import ROLES

# Options of transformers that are not here, with the values that ask for nothing but what is done.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "backend": (None, "tokenizers"),
    "code_revision": (None,),
    "fix_mistral_regex": (None, False),
    "from_slow": (None, False),
    "mirror": (None,),
    "mistral_format": (None, False),
    "proxies": (None,),
    "resume_download": (None, True, False),
    "trust_remote_code": (None, True, False),
    "use_fast": (None, True, False),
    "verbose": (None, True, False),
}
# Of these, the values that a warning explains.
_EXPLAINED: dict[str, tuple[bool, str]] = {
    "use_fast": (False, "there is only one kind of tokenizer, with the ids of the slow ones"),
}
_OF_CALLS = frozenset(Encoder.__call__.__kwdefaults__ or ()) - {"padding_side", "split_special_tokens"}
# fmt: off
_OF_MODELS = frozenset({
    "attn_implementation", "dequantize", "device", "device_map", "dtype", "load_in_4bit", "load_in_8bit",
    "low_cpu_mem_usage", "quantization_config", "torch_dtype", "use_cache", "use_safetensors",
})
# fmt: on
_ROLE_NAMES = [f"{role}_token" for role in ROLES]


@dataclass(frozen=True, kw_only=True)
class TokenizerOptions:
    """The options of `AutoTokenizer.from_pretrained`, which explains each.

    Attributes:
        hub: those for fetching files.
        special: tokens that replace those of the files, such as `pad_token`; None removes the role.
        settings: those of `Tokenizer`.
    """

    subfolder: str | None = None
    pre: str | PreTokenizer | None = None
    add_prefix_space: bool | None = None
    tokenizer_type: str | None = None
    config: Any = None
    legacy: bool | None = None
    hub: HubOptions = field(default_factory=HubOptions)
    special: dict[str, str | AddedToken | None] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """Sort the options of `from_pretrained`.

        Raises:
            ValueError: an option of transformers asks for something that is not supported.
            TypeError: there is no such option.
        """
        named = dict(options)
        rename_option(named, "use_auth_token", "token")
        names = {option.name for option in fields(cls)} - {"hub", "special", "settings"}
        groups = split_options(named, _NEUTRAL, HubOptions.__annotations__, _ROLE_NAMES, SETTINGS, names)
        hub, special, settings, own, unknown = groups
        for name, (value, what_is_done) in _EXPLAINED.items():
            if options.get(name) is value:
                warnings.warn(f"{name}={value}: {what_is_done}", stacklevel=4)
        for name in unknown:
            raise TypeError(f"from_pretrained of a tokenizer has no option {name}=: {_hint(name)}")
        return cls(**own, hub=HubOptions(**hub), special=special, settings=settings)  # type: ignore[typeddict-item]


def _hint(name: str) -> str:
    if name in _OF_CALLS:
        return f"pass it to the tokenizer, as in tokenizer(text, {name}=...)"
    if name in _OF_MODELS:
        return "it belongs to the model"
    return f"there are {', '.join(sorted(SETTINGS))}"
