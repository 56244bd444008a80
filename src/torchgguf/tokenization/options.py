"""What `from_pretrained` may be told of a tokenizer, sorted: where it is, how to read it, what to set."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from tokenizers import AddedToken

from torchgguf.hub import HubOptions
from torchgguf.tokenization.encoding.encoder import TextEncoder
from torchgguf.tokenization.kinds.pre_tokenizers import PreTokenizer
from torchgguf.tokenization.sources.declared import ROLES

# Options of transformers that are not here, with the values that ask for nothing else than is done.
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
# Those who write this shall know what they get.
_SAID: dict[str, tuple[Any, str]] = {
    "trust_remote_code": (True, "no code of a repository is ever run: its tokenizer is read from its files"),
    "use_fast": (False, "there is but one kind of tokenizer, with the ids of the slow ones"),
}
_OF_CALLS = frozenset(TextEncoder.__call__.__kwdefaults__ or ()) - {"padding_side", "split_special_tokens"}
# fmt: off
_OF_MODELS = frozenset({
    "attn_implementation", "dequantize", "device", "device_map", "dtype", "load_in_4bit", "load_in_8bit",
    "low_cpu_mem_usage", "quantization_config", "torch_dtype", "use_cache", "use_safetensors",
})
# fmt: on


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """The options of `AutoTokenizer.from_pretrained`, where each is explained.

    Attributes:
        hub: those that concern fetching.
        special: tokens that replace those of the files, such as `pad_token`; None for none at all.
        settings: those of the tokenizer's class.
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
    def of(cls, options: Mapping[str, Any], settings: Collection[str]) -> Self:
        """Sort what `from_pretrained` was given; `settings` are the names that the tokenizer's class knows.

        Raises:
            ValueError: an option of transformers asks for what is not done.
            TypeError: there is no such option.
        """
        for name in options.keys() & _NEUTRAL.keys():
            if options[name] not in _NEUTRAL[name]:
                raise ValueError(f"{name}={options[name]!r} is not supported")
            value, what_is_done = _SAID.get(name, (None, ""))
            if options[name] is value is not None:
                warnings.warn(f"{name}={value}: {what_is_done}", stacklevel=4)
        rest = {name: value for name, value in options.items() if name not in _NEUTRAL}
        older = rest.pop("use_auth_token", None)
        if rest.get("token") is None and older is not None:
            rest["token"] = older
        sorted_: dict[str, Any] = {
            "hub": _take(rest, HubOptions.__annotations__),
            "special": _take(rest, [f"{role}_token" for role in ROLES]),
            "settings": _take(rest, settings),
            **_take(rest, [option.name for option in fields(cls)]),
        }
        for name in rest:
            if name in _OF_CALLS:
                hint = f"say it when you call the tokenizer, as in tokenizer(text, {name}=...)"
            elif name in _OF_MODELS:
                hint = "it is one of the model's"
            else:
                hint = f"there are {', '.join(sorted(settings))}"
            raise TypeError(f"from_pretrained of a tokenizer has no option {name}=: {hint}")
        return cls(**sorted_)


def _take(options: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: options.pop(name) for name in list(options) if name in names}
