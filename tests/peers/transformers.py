"""What the installed transformers calls things, asked once: 5.24 renamed `past_key_values` to `cache`."""

from dataclasses import fields
from typing import Any

import transformers.modeling_outputs

_OUTPUT = transformers.modeling_outputs.CausalLMOutputWithPast
CACHE_NAME = next(f.name for f in fields(_OUTPUT) if f.name in ("cache", "past_key_values"))


def their_name(name: str) -> str:
    """Return what transformers calls an argument, a field or a key of ours."""
    return CACHE_NAME if name == "cache" else name


def our_name(name: str) -> str:
    """Return what we call an argument, a field or a key of transformers."""
    return "cache" if name == CACHE_NAME else name


def cache_of(output: Any) -> Any:
    """Return the cache in an output of transformers."""
    return getattr(output, CACHE_NAME)


def given_cache(cache: Any) -> dict[str, Any]:
    """Return the argument by which a model of transformers accepts a cache."""
    return {CACHE_NAME: cache}
