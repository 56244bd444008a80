"""What a call of `generate` may be told: `GenerationConfig`, its defaults and how several are merged."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

SAMPLING_FIELDS = ("temperature", "top_k", "top_p", "min_p")


@dataclass(kw_only=True)
class GenerationConfig:
    """How to generate. Field names, meanings and defaults are those of transformers.

    A field that is None is unset: it is taken from the model's own `generation_config`, failing that from
    `DEFAULTS`; given to `generate` itself, None says that there is none (`eos_token_id=None`: no token ends
    the text). Lengths are in tokens; `max_length` counts the prompt, `max_new_tokens` does not and wins.
    Raises `ValueError` for a value outside its range.
    """

    # how long
    max_length: int | None = None
    max_new_tokens: int | None = None
    min_length: int | None = None
    min_new_tokens: int | None = None
    stop_strings: str | Sequence[str] | None = None
    # which tokens
    do_sample: bool | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    num_return_sequences: int | None = None
    # how it is computed
    use_cache: bool | None = None
    prefill_chunk_size: int | None = None
    # special tokens
    eos_token_id: int | Sequence[int] | None = None
    pad_token_id: int | None = None
    bos_token_id: int | None = None

    def __post_init__(self) -> None:
        """Refuse values that cannot mean anything."""
        for name, (allowed, wish) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not allowed(value):
                raise ValueError(f"{name} must be {wish}, not {value!r}")
        stop_texts(self.stop_strings)

    def to_dict(self) -> dict[str, Any]:
        """The fields that are set."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @property
    def eos_token_ids(self) -> list[int]:
        """The tokens that end the text, as a list whichever way they were given."""
        eos = self.eos_token_id
        return [] if eos is None else [eos] if isinstance(eos, int) else list(eos)


def stop_texts(stop_strings: str | Sequence[str] | None) -> list[str]:
    """The texts that end a text, as a list whichever way they were given. `ValueError` for an empty one."""
    texts = [stop_strings] if isinstance(stop_strings, str) else list(stop_strings or ())
    if not all(texts):
        raise ValueError("an empty stop string would stop everything")
    return texts


_RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "max_length": (lambda n: n >= 1, "at least 1"),
    "max_new_tokens": (lambda n: n >= 1, "at least 1"),
    "min_length": (lambda n: n >= 0, "at least 0"),
    "min_new_tokens": (lambda n: n >= 0, "at least 0"),
    "temperature": (lambda t: t > 0, "above 0 (for greedy decoding set do_sample=False)"),
    "top_k": (lambda k: k >= 0 and k == int(k), "a whole number, 0 for no limit"),
    "top_p": (lambda p: 0 <= p <= 1, "between 0 and 1"),
    "min_p": (lambda p: 0 <= p <= 1, "between 0 and 1"),
    "repetition_penalty": (lambda r: r > 0, "above 0"),
    "num_return_sequences": (lambda n: n >= 1, "at least 1"),
    "prefill_chunk_size": (lambda n: n >= 1, "at least 1"),
}

# max_length is left out: without any length, 20 tokens follow whatever prompt there is.
DEFAULTS = GenerationConfig(
    min_length=0,
    do_sample=False,
    temperature=1.0,
    top_k=50,
    top_p=1.0,
    repetition_penalty=1.0,
    num_return_sequences=1,
    use_cache=True,
)
DEFAULT_NEW_TOKENS = 20


def resolve(
    model_config: GenerationConfig, call_config: GenerationConfig | None, arguments: dict[str, Any]
) -> GenerationConfig:
    """One config from, in rising priority, the defaults, the model's, the one given, the call's arguments.

    Raises `TypeError` that names the arguments `generate` does not know.
    """
    known = [field.name for field in fields(GenerationConfig)]
    unknown = [name for name in arguments if name not in known]
    if unknown:
        close = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise TypeError(f"generate() does not know {', '.join(map(repr, unknown))}{hint}")

    asked = (call_config.to_dict() if call_config else {}) | arguments
    config = GenerationConfig(**DEFAULTS.to_dict() | model_config.to_dict() | asked)
    unused = [name for name in SAMPLING_FIELDS if asked.get(name) is not None]
    if unused and not config.do_sample:
        warnings.warn(f"{', '.join(unused)} have no effect without do_sample=True", UserWarning, stacklevel=4)
    if config.num_return_sequences not in (None, 1) and not config.do_sample:
        raise ValueError("num_return_sequences above 1 needs do_sample=True: greedy decoding has one answer")
    if config.use_cache is False and config.prefill_chunk_size is not None:
        raise ValueError("prefill_chunk_size needs use_cache: without, the whole text is read at every step")
    return config
