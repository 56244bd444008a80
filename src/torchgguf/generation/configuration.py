"""`GenerationConfig`: the settings of `generate`, and their file, generation_config.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from os import PathLike
from pathlib import Path
from typing import Any, Self

from torchgguf.container.atomic import atomic_write
from torchgguf.generation.ranges import CHECKS, as_tokens, refuse_unsupported, stop_texts
from torchgguf.hub import HubOptions, find_file

FILE_NAME = "generation_config.json"
# In a model's own config these are settings of `forward`, not of `generate`.
_OF_FORWARD = {"use_cache", "output_attentions", "output_hidden_states"}


@dataclass(kw_only=True)
class GenerationConfig:
    """Settings of `generate`. Field names, meanings and defaults are those of transformers.

    A field that is None is unset: the model's own `generation_config` sets it, or else `DEFAULTS`. As an
    argument of `generate`, None switches the setting off (`eos_token_id=None`: no token ends the text).
    Lengths count tokens; `max_length` counts the prompt too, `max_new_tokens` does not and wins.

    Attributes:
        max_length, max_new_tokens, min_length, min_new_tokens, stop_strings: when a text ends.
        max_time: seconds after which texts end with the token then made.
        do_sample: draw tokens, by `temperature`, `top_k`, `top_p`, `min_p`, `typical_p`, `epsilon_cutoff` and
            `eta_cutoff`; otherwise choose the best one.
        num_beams: how many texts of each prompt compete (beam search; with `do_sample`, continuations are
            drawn); scores of finished ones are divided by their length to the power of `length_penalty`.
        early_stopping: end a beam search with as many finished texts as beams (True), when what goes on looks
            unlikely to win (False), or when it is certain to lose ("never").
        num_return_sequences: how many texts of each prompt to return.
        repetition_penalty, no_repeat_ngram_size, bad_words_ids, sequence_bias, suppress_tokens,
            begin_suppress_tokens, forced_bos_token_id, forced_eos_token_id,
            exponential_decay_length_penalty: what to do to some tokens' scores.
        renormalize_logits: make scores log-probabilities again after all that.
        use_cache, cache_implementation: whether keys and values are kept, and how: "dynamic", in tensors that
            grow, or "static", of a fixed size, for compiled models.
        max_cache_len: positions that a static cache has room for, if not more are needed: a model is compiled
            again for another size.
        prefill_chunk_size: read prompts so many tokens at a time.
        return_dict_in_generate: return an output instead of tokens. It contains the tokens, the `cache` and
            what `output_scores`, `output_logits`, `output_attentions` and `output_hidden_states` add.

    Raises:
        ValueError: a value is outside its range.
    """

    # how long
    max_length: int | None = None
    max_new_tokens: int | None = None
    min_length: int | None = None
    min_new_tokens: int | None = None
    max_time: float | None = None
    stop_strings: str | Sequence[str] | None = None
    # which tokens
    do_sample: bool | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    epsilon_cutoff: float | None = None
    eta_cutoff: float | None = None
    repetition_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    sequence_bias: Mapping[tuple[int, ...], float] | Sequence[Sequence[Any]] | None = None
    bad_words_ids: Sequence[Sequence[int]] | None = None
    suppress_tokens: Sequence[int] | None = None
    begin_suppress_tokens: Sequence[int] | None = None
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | Sequence[int] | None = None
    exponential_decay_length_penalty: tuple[int, float] | None = None
    renormalize_logits: bool | None = None
    num_return_sequences: int | None = None
    # beams
    num_beams: int | None = None
    length_penalty: float | None = None
    early_stopping: bool | str | None = None
    # how it is computed
    use_cache: bool | None = None
    cache_implementation: str | None = None
    max_cache_len: int | None = None
    prefill_chunk_size: int | None = None
    # what is returned
    return_dict_in_generate: bool | None = None
    output_scores: bool | None = None
    output_logits: bool | None = None
    output_attentions: bool | None = None
    output_hidden_states: bool | None = None
    # special tokens
    eos_token_id: int | Sequence[int] | None = None
    pad_token_id: int | None = None
    bos_token_id: int | None = None

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        for name, (allowed, wish) in CHECKS.items():
            value = getattr(self, name)
            if value is not None and not allowed(value):
                raise ValueError(f"{name} must be {wish}, not {value!r}")
        stop_texts(self.stop_strings)

    @classmethod
    def from_dict(cls, config_dict: Mapping[str, Any], **settings: Any) -> Self:
        """Build from the contents of a generation_config.json; `settings` win over it.

        Keys that are no fields and would change nothing are kept, to be written again.

        Raises:
            ValueError: a value is outside its range, or asks for what is not supported.
        """
        given = {name: value for name, value in {**config_dict, **settings}.items() if value is not None}
        refuse_unsupported(given)
        config = cls(**{name: given.pop(name) for name in FIELDS if name in given})
        vars(config).update(given)
        return config

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name: str | PathLike[str],
        config_file_name: str = FILE_NAME,
        **options: Any,
    ) -> Self:
        """Read the file of a folder or of a repository of the Hugging Face Hub.

        Args:
            pretrained_model_name: the folder or the repository.
            config_file_name: the file in it.
            options: fields that win over the file's, and `HubOptions`.

        Raises:
            FileNotFoundError: there is no such file.
            TypeError: an option is unknown.
            ValueError: the file is no JSON object, or as in `from_dict`.
        """
        hub: Any = {name: options.pop(name) for name in HubOptions.__annotations__ if name in options}
        if unknown := options.keys() - set(FIELDS):
            raise TypeError(f"GenerationConfig has no {', '.join(sorted(unknown))}")
        file = find_file(pretrained_model_name, config_file_name, **hub)
        try:
            contents = json.loads(file.read_bytes())
        except ValueError as error:
            raise ValueError(f"{file} is no JSON: {error}") from None
        if not isinstance(contents, dict):
            raise ValueError(f"{file} holds no JSON object")
        return cls.from_dict(contents, **options)

    @classmethod
    def from_model_config(cls, model_config: Any) -> Self:
        """Read special tokens, and in old configs settings of `generate`, from a model's own config."""
        values = model_config if isinstance(model_config, Mapping) else model_config.to_dict()
        refuse_unsupported(values)
        return cls(**{name: values.get(name) for name in FIELDS if name not in _OF_FORWARD})

    def save_pretrained(self, save_directory: str | PathLike[str], config_file_name: str = FILE_NAME) -> None:
        """Write the file that `from_pretrained`, here and in transformers, reads."""
        Path(save_directory).mkdir(parents=True, exist_ok=True)
        with atomic_write(Path(save_directory, config_file_name)) as file:
            file.write(self.to_json_string().encode())

    def to_json_string(self) -> str:
        """Return the text of a generation_config.json: all that is set."""
        values = self.to_dict()
        if isinstance(bias := values.get("sequence_bias"), Mapping):  # JSON's keys are strings
            values["sequence_bias"] = [[list(tokens), value] for tokens, value in bias.items()]
        return json.dumps(values, indent=2, sort_keys=True) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """Return what is set, and what `from_dict` kept."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def settings(self) -> dict[str, Any]:
        """Return the fields that are set."""
        return {name: value for name in FIELDS if (value := getattr(self, name)) is not None}

    @property
    def eos_token_ids(self) -> list[int]:
        """The tokens that end the text, as a list."""
        return as_tokens(self.eos_token_id)


FIELDS = tuple(field.name for field in fields(GenerationConfig))
