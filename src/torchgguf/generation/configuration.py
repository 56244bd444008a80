"""`GenerationConfig`: the settings of `generate`, and their file, generation_config.json."""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from logging import getLogger
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Self

from torchgguf.container.atomic import atomic_write
from torchgguf.generation.foreign import (
    FOREIGN,
    UNSUPPORTED,
    ForeignSettings,
    asks_for_unsupported,
    refuse_unsupported,
)
from torchgguf.generation.ranges import CHECKS, as_tokens, is_read, is_usable, meaning_of, stop_texts
from torchgguf.generation.stored_settings import FILE_NAME, read_settings
from torchgguf.hub import HubOptions

_logger = getLogger(__name__)

# In a model's own config these are settings of `forward`, not of `generate`.
_OF_FORWARD = {"use_cache", "output_attentions", "output_hidden_states"}
_ABOUT_THE_FILE = ("transformers_version", "_from_model_config", "_commit_hash")


@dataclass(kw_only=True, eq=False, repr=False)
class GenerationConfig(ForeignSettings):
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
        remove_invalid_values: replace scores that are not numbers by 0, infinite ones by the largest number.
        renormalize_logits: make scores log-probabilities again after all that.
        use_cache, cache_implementation: whether keys and values are kept, and how: "dynamic", in tensors that
            grow, or "static", of a fixed size, for compiled models.
        max_cache_len: positions that a static cache has room for, if not more are needed: a model is compiled
            again for another size.
        prefill_chunk_size: read prompts so many tokens at a time; by default 512, or None with a static
            cache, without a cache, or if states are returned. None reads them at once. Results are equal.
        prompt_lookup_num_tokens: guess so many tokens by what followed the last ones, at most
            `max_matching_ngram_size` (2), earlier in the text: one that repeats itself needs fewer steps.
        decoder_start_token_id: with which the text of a decoder begins that follows an encoder.
        return_dict_in_generate: return an output instead of tokens. It contains the tokens, the `cache` and
            what `output_scores`, `output_logits`, `output_attentions` and `output_hidden_states` add.

    Raises:
        ValueError: a value is outside its range, and not without effect (`top_p` without `do_sample`); or it
            asks for what is not supported.
    """

    extra_output_flags: ClassVar[tuple[str, ...]] = (
        "output_attentions",
        "output_hidden_states",
        "output_scores",
        "output_logits",
    )

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
    remove_invalid_values: bool | None = None
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
    prompt_lookup_num_tokens: int | None = None
    max_matching_ngram_size: int | None = None
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
    decoder_start_token_id: int | Sequence[int] | None = None

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        # What a file states and is not usable: its value there, and what it stands for, if anything.
        self._unusable: dict[str, tuple[Any, Any]] = {}
        self.validate()

    def _as_stored(self, name: str) -> bool:
        """Return whether a field still has the unusable value of a file."""
        return name in self._unusable and self._unusable[name][0] is getattr(self, name)

    def validate(self, strict: bool = False, user_set_attributes: Collection[str] | None = None) -> None:
        """Refuse values outside their range, except those that a file states: they were warned about.

        Args:
            strict: refuse values without effect too.
            user_set_attributes: the names to look at; by default all.

        Raises:
            ValueError: as in the class.
        """
        for name in (*FIELDS, *FOREIGN):
            value = getattr(self, name)
            if user_set_attributes is not None and name not in user_set_attributes:
                continue
            if self._as_stored(name):
                continue
            refuse_unsupported({name: value})
            if name in CHECKS and not is_usable(name, value) and (strict or is_read(name, self)):
                if name == "stop_strings" and CHECKS[name][0](value):
                    stop_texts(value)
                raise ValueError(f"{name} must be {CHECKS[name][1]}, not {value!r}")

    @classmethod
    def from_dict(cls, config_dict: Mapping[str, Any], **settings: Any) -> Any:
        """Build from a dict; `settings` win over it.

        Keys that are no fields and would change nothing are kept, to be written again.

        Args:
            config_dict: fields and other keys.
            settings: fields. With `return_unused_kwargs=True`, the result is a pair: the config, and a dict
                of those that are no fields.

        Returns:
            The config.

        Raises:
            ValueError: as in the class.
        """
        wants_unused = settings.pop("return_unused_kwargs", False)
        unused = {name: settings.pop(name) for name in list(settings) if name not in (*FIELDS, *FOREIGN)}
        given = {name: value for name, value in {**config_dict, **settings}.items() if value is not None}
        more = {} if wants_unused else unused
        config = cls(**{name: given.pop(name) for name in (*FIELDS, *FOREIGN) if name in given})
        vars(config).update(given | more)
        return (config, unused) if wants_unused else config

    @classmethod
    def stored(cls, values: Mapping[str, Any], source: str, **settings: Any) -> Self:
        """Build from the contents of a file, which anyone may have written.

        A value outside its range is kept, to be written again, and has no effect, unless other programs
        switch a setting off by it. One warning names the file and all such fields.

        Args:
            values: fields and other keys.
            source: the name of the file.
            settings: fields that win over the file's.

        Raises:
            ValueError: one of `settings` is as in the class.
        """
        given = {name: value for name, value in values.items() if value is not None and name not in settings}
        unusable = {
            name: (value, meaning_of(name, value))
            for name, value in given.items()
            if asks_for_unsupported(name, value) or (name in FIELDS and not is_usable(name, value))
        }
        usable = {name: value for name, value in given.items() if name not in unusable}
        config = cls.from_dict(usable, **settings)
        for name, (value, _) in unusable.items():
            setattr(config, name, value)
        config._unusable = unusable
        if unusable:
            words = (
                f"{name}={value!r} " + (f"stands for {meaning!r}" if meaning is not None else "is ignored")
                for name, (value, meaning) in unusable.items()
            )
            _warn_once(f"{source} has settings outside their range: {', '.join(words)}")
        return config  # type: ignore[no-any-return]

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name: str | PathLike[str],
        config_file_name: str | None = None,
        *,
        gguf_file: str | None = None,
        **options: Any,
    ) -> Any:
        """Read a file, or that of a folder or of a repository of the Hugging Face Hub.

        Args:
            pretrained_model_name: the folder or the repository; or the file itself, JSON or GGUF.
            config_file_name: the file in it; by default generation_config.json.
            gguf_file: the GGUF file in it, to read instead.
            options: fields that win over the file's, `HubOptions`, `subfolder`, and `return_unused_kwargs` as
                in `from_dict`.

        Returns:
            The config. Values outside their range are as in `stored`.

        Raises:
            FileNotFoundError: there is no such file.
            GGUFError: the GGUF file is invalid.
            TypeError: an option is unknown.
            ValueError: the file is no JSON object, or an option is as in the class.
        """
        hub: Any = {name: options.pop(name) for name in HubOptions.__annotations__ if name in options}
        wants_unused = options.pop("return_unused_kwargs", False)
        unused = {name: options.pop(name) for name in list(options) if name not in (*FIELDS, *FOREIGN)}
        subfolder = unused.pop("subfolder", "") or ""
        if unused and not wants_unused:
            raise TypeError(f"GenerationConfig has no {', '.join(sorted(unused))}")
        name = "/".join(part for part in (subfolder, config_file_name or FILE_NAME) if part)
        config = cls.stored(*read_settings(pretrained_model_name, name, gguf_file, **hub), **options)
        return (config, unused) if wants_unused else config

    @classmethod
    def from_model_config(cls, model_config: Any, *, source: str = "the model's config") -> Self:
        """Read special tokens, and in old configs settings of `generate`, from a model's own config.

        Args:
            model_config: the config, or a dict.
            source: what to call it in a warning; see `stored`.
        """
        values = model_config if isinstance(model_config, Mapping) else model_config.to_dict()
        names = {*FIELDS, *UNSUPPORTED} - _OF_FORWARD
        return cls.stored({name: value for name, value in values.items() if name in names}, source)

    def update(
        self, defaults_only: bool = False, allow_custom_entries: bool = False, **settings: Any
    ) -> dict[str, Any]:
        """Set fields.

        Args:
            defaults_only: set only fields that are None.
            allow_custom_entries: set attributes that are no fields too.
            settings: the new values.

        Returns:
            What was not set.

        Raises:
            ValueError: as in the class.
        """
        known = {name for name in settings if allow_custom_entries or hasattr(self, name)}
        chosen = {name for name in known if not defaults_only or getattr(self, name, None) is None}
        for name in chosen:
            setattr(self, name, settings[name])
        self.validate(user_set_attributes=chosen)
        return {name: value for name, value in settings.items() if name not in chosen}

    def save_pretrained(
        self,
        save_directory: str | PathLike[str],
        config_file_name: str | PathLike[str] | None = None,
        push_to_hub: bool = False,
    ) -> None:
        """Write the file that `from_pretrained`, here and in transformers, reads.

        Args:
            save_directory: the folder; it is created if it does not exist.
            config_file_name: the name of the file; by default generation_config.json.
            push_to_hub: must be False.

        Raises:
            ValueError: `push_to_hub` is True.
        """
        if push_to_hub:
            raise ValueError("push_to_hub=True is not supported: upload the folder with huggingface_hub")
        Path(save_directory).mkdir(parents=True, exist_ok=True)
        self.to_json_file(Path(save_directory, config_file_name or FILE_NAME))

    def to_json_file(
        self,
        json_file_path: str | PathLike[str],
        use_diff: bool = True,
        keys_to_pop: Sequence[str] | None = None,
    ) -> None:
        """Write `to_json_string`.

        Args:
            json_file_path: the file.
            use_diff: as in `to_json_string`.
            keys_to_pop: as in `to_json_string`.
        """
        with atomic_write(Path(json_file_path)) as file:
            file.write(self.to_json_string(use_diff, keys_to_pop=keys_to_pop).encode())

    def to_json_string(
        self,
        use_diff: bool = True,
        ignore_metadata: bool = False,
        keys_to_pop: Sequence[str] | None = None,
    ) -> str:
        """Return the text of a generation_config.json.

        Args:
            use_diff: leave out what is None.
            ignore_metadata: leave out which program wrote the file.
            keys_to_pop: leave out these too.
        """
        values = self.to_diff_dict() if use_diff else self.to_dict()
        for name in (*(keys_to_pop or ()), *(_ABOUT_THE_FILE if ignore_metadata else ())):
            values.pop(name, None)
        if isinstance(bias := values.get("sequence_bias"), Mapping):  # JSON's keys are strings
            values["sequence_bias"] = [[list(tokens), value] for tokens, value in bias.items()]
        return json.dumps(values, indent=2, sort_keys=True, default=str) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, and what `from_dict` kept."""
        return copy.deepcopy({name: value for name, value in vars(self).items() if name != "_unusable"})

    def to_diff_dict(self) -> dict[str, Any]:
        """Return what is set, and what `from_dict` kept."""
        return {name: value for name, value in self.to_dict().items() if value is not None}

    def settings(self) -> dict[str, Any]:
        """Return the fields that are set; of unusable values that a file states, what they stand for."""
        stated = {name: getattr(self, name) for name in FIELDS}
        meant = {name: self._unusable[name][1] for name in stated if self._as_stored(name)}
        return {name: value for name, value in (stated | meant).items() if value is not None}

    def __eq__(self, other: object) -> bool:
        """Return whether another config would write the same file, but for the program that wrote it."""
        if not isinstance(other, GenerationConfig):
            return NotImplemented
        return self.to_json_string(ignore_metadata=True) == other.to_json_string(ignore_metadata=True)

    def __hash__(self) -> int:
        """Return a hash of what is set."""
        return hash(self.to_json_string(ignore_metadata=True))

    def __repr__(self) -> str:
        """Return what is set."""
        return f"{type(self).__name__} {self.to_json_string(ignore_metadata=True)}"

    @property
    def eos_token_ids(self) -> list[int]:
        """The tokens that end the text, as a list."""
        return as_tokens(self.settings().get("eos_token_id"))


FIELDS = tuple(field.name for field in fields(GenerationConfig) if field.name not in FOREIGN)


@cache  # each text once
def _warn_once(text: str) -> None:
    _logger.warning(text)
