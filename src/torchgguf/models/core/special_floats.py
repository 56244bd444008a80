"""Infinities and NaN in config.json, which JSON lacks: transformers stores `{"__float__": "Infinity"}`."""

import math
from typing import Any

_TAG = "__float__"
_NAMES = {"Infinity": math.inf, "-Infinity": -math.inf, "NaN": math.nan}


def encoded(value: Any) -> Any:
    """Return a value for JSON, with tagged infinities and NaN."""
    if isinstance(value, float) and not math.isfinite(value):
        return {_TAG: "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"}
    if isinstance(value, dict):
        return {key: encoded(each) for key, each in value.items()}
    return [encoded(each) for each in value] if isinstance(value, list | tuple) else value


def decoded(value: Any) -> Any:
    """Return the inverse of `encoded`."""
    if isinstance(value, dict):
        name = value.get(_TAG)
        if len(value) == 1 and isinstance(name, str) and name in _NAMES:
            return _NAMES[name]
        return {key: decoded(each) for key, each in value.items()}
    return [decoded(each) for each in value] if isinstance(value, list) else value
