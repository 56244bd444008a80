"""From the arguments of `generate` to what will decode: prompts, config, cache, processors, criteria."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from torchgguf.generation.arguments import without_neutral
from torchgguf.generation.beams import BeamSearch
from torchgguf.generation.configuration import FIELDS, GenerationConfig
from torchgguf.generation.context import Context
from torchgguf.generation.decoding import Decoding
from torchgguf.generation.encoder_decoder import DecoderContext, read_by_encoder
from torchgguf.generation.foreign import FOREIGN
from torchgguf.generation.logits_process import Processor
from torchgguf.generation.lookup import LookupContext
from torchgguf.generation.outputs import Record
from torchgguf.generation.plan import Plan
from torchgguf.generation.processing import processors_for, warpers_for
from torchgguf.generation.prompts import Prompts, read_prompts, vocabulary_size
from torchgguf.generation.recorded import RecordedSteps
from torchgguf.generation.resolution import DEFAULT_NEW_TOKENS, resolve
from torchgguf.generation.speculation import SpeculativeContext
from torchgguf.generation.stopping import Criterion, EosTokenCriteria, MaxTimeCriteria, StopStringCriteria
from torchgguf.generation.streamers import Decoder
from torchgguf.nn import Cache, StaticCache, accept_second_names

_STATES = ("hidden_states", "attentions")
_LONGEST_MATCH = 2  # tokens, as in transformers
# The names that settings ask for states by, where they are others than their own.
_FLAGS = {"cross_attentions": "attentions"}


@dataclass(frozen=True)
class Prepared:
    """What `generate` does.

    Attributes:
        prompts: `(batch, length)`, once for each sequence asked for.
        run: what continues them.
        encoded: what an encoder returned, if it is a decoder's texts that are continued; otherwise None.
    """

    prompts: Tensor
    run: Decoding | BeamSearch
    encoded: Any = None


@accept_second_names
def prepare(
    model: Any,
    input_ids: Tensor | None,
    *,
    inputs: Tensor | None = None,
    attention_mask: Tensor | None = None,
    generation_config: GenerationConfig | None = None,
    generator: torch.Generator | None = None,
    tokenizer: Decoder | None = None,
    cache: Cache | None = None,
    logits_processor: Sequence[Processor] | None = None,
    stopping_criteria: Sequence[Criterion] | None = None,
    prefix_allowed_tokens_fn: Callable[[int, Tensor], Sequence[int]] | None = None,
    position_ids: Tensor | None = None,
    token_type_ids: Tensor | None = None,
    inputs_embeds: Tensor | None = None,
    assistant: str | None = None,
    use_plan: bool | None = None,
    encoder_outputs: Any = None,
    decoder_input_ids: Tensor | None = None,
    decoder_attention_mask: Tensor | None = None,
    **settings: Any,
) -> Prepared:
    """Prepare what a call asks for; arguments and errors are those of `GenerationMixin`."""
    if inputs is not None and input_ids is not None:
        raise ValueError("inputs and input_ids are two names of one argument: use one of them")
    input_ids = inputs if input_ids is None else input_ids
    own = model.generation_config or GenerationConfig.from_model_config(model.config)
    config = resolve(own, generation_config, without_neutral(settings, (*FIELDS, *FOREIGN)))
    decoder = None
    if getattr(model.config, "is_encoder_decoder", False):
        read = (input_ids, inputs_embeds, attention_mask)
        begun = read_by_encoder(
            model, config, *read, encoder_outputs, decoder_input_ids, decoder_attention_mask
        )
        decoder, input_ids, attention_mask = begun.decoder, begun.input_ids, begun.attention_mask
        inputs_embeds = None
    elif any(x is not None for x in (encoder_outputs, decoder_input_ids, decoder_attention_mask)):
        raise ValueError(
            f"{type(model).__name__} has no encoder: leave out encoder_outputs, decoder_input_ids and "
            "decoder_attention_mask"
        )
    prompts = read_prompts(model, input_ids, inputs_embeds, attention_mask, config)
    length = prompts.length
    beams, sequences = config.num_beams or 1, config.num_return_sequences or 1
    repeats = max(beams, sequences)
    new = _within_context(model, length, _new_tokens(config, length))
    room = length + new - 1  # the last token is never read
    if cache is not None:
        _check_cache(cache, config, prompts, room)

    ahead = length - prompts.tokens.shape[1]  # processors see tokens only
    paddings = None if prompts.padding is None or ahead else prompts.padding.repeat_interleave(repeats)
    if ahead and config.min_length:
        config.min_length = max(config.min_length - ahead, 0)
    record = _record(config, _STATES if decoder is None else (*_STATES, "cross_attentions"))
    make_context: Callable[..., Context] = Context if decoder is None else DecoderContext
    if config.prompt_lookup_num_tokens:
        make_context = _looking_up(config, prompts, repeats, assistant)
    elif assistant is not None:
        make_context = _speculative(model, assistant, config, prompts, repeats)
    planned = make_context is Context and _is_planned(use_plan, config)
    context = make_context(
        model=model if decoder is None else decoder,
        input_ids=prompts.tokens,
        padding=prompts.padding,
        cache=_new_cache(model, config, room) if cache is None else cache,
        use_cache=config.use_cache is not False,
        prefill_chunk_size=config.prefill_chunk_size,
        repeats=repeats,
        wanted=() if record is None else record.states,
        embeds=prompts.embeds,
        beside=_beside(model, prompts, position_ids, token_type_ids),
        recorded=RecordedSteps(model, length + new, new) if planned else None,
    )
    processors = processors_for(
        config, length - ahead, length - ahead + new, paddings, prefix_allowed_tokens_fn
    )
    plan = Plan(
        context=context,
        max_new_tokens=new,
        processors=merged(processors, logits_processor or ()),
        warpers=warpers_for(config),
        do_sample=bool(config.do_sample),
        criteria=merged(_criteria(config, tokenizer), stopping_criteria or ()),
        generator=generator,
        record=record,
        lasting=cache is not None or record is not None,
    )
    given = prompts.given.repeat_interleave(sequences, 0)
    encoded = None if decoder is None else decoder.encoded
    if beams > 1:
        return Prepared(given, _beam_search(model, plan, config, beams, sequences), encoded)
    pad = _filling(model, config) if plan.criteria and len(given) > 1 else None
    return Prepared(given, Decoding(plan, pad_token_id=pad), encoded)


def _looking_up(
    config: GenerationConfig, prompts: Prompts, repeats: int, assistant: str | None
) -> Callable[..., Context]:
    """Return what makes the context of a text whose next tokens are looked up in it."""
    if len(prompts.tokens) > 1 or repeats > 1 or prompts.embeds is not None or assistant is not None:
        raise ValueError(
            "prompt_lookup_num_tokens continues one prompt of tokens, once, without an assistant"
        )
    if config.use_cache is False or config.cache_implementation == "static":
        raise ValueError("prompt_lookup_num_tokens needs a cache that grows")
    if any(getattr(config, f"output_{name}") for name in _STATES):
        raise ValueError(
            "prompt_lookup_num_tokens does not record states: leave output_hidden_states and "
            "output_attentions out"
        )
    assert config.prompt_lookup_num_tokens is not None  # which asked for this context
    size = config.max_matching_ngram_size or _LONGEST_MATCH
    return partial(LookupContext, num_tokens=config.prompt_lookup_num_tokens, max_ngram=size)


def _speculative(
    model: Any, assistant: str, config: GenerationConfig, prompts: Prompts, repeats: int
) -> Callable[..., Context]:
    """Return what makes the context of a text whose next tokens a part of the model guesses."""
    if assistant != "mtp":
        raise ValueError(f"assistant must be 'mtp', got {assistant!r}")
    if (make_drafter := getattr(model, "make_drafter", None)) is None:
        raise ValueError(
            f"{type(model).__name__} has no blocks for multi-token prediction: leave assistant out"
        )
    if len(prompts.tokens) > 1 or repeats > 1 or prompts.embeds is not None:
        raise ValueError("assistant='mtp' continues one prompt of tokens, once")
    if config.use_cache is False or config.cache_implementation == "static":
        raise ValueError("assistant='mtp' needs a cache that grows")
    if any(getattr(config, f"output_{name}") for name in _STATES):
        raise ValueError(
            "assistant='mtp' does not record states: leave output_hidden_states and output_attentions out"
        )
    return partial(SpeculativeContext, drafter=make_drafter())


def _is_planned(use_plan: bool | None, config: GenerationConfig) -> bool:
    """Return whether steps shall be recorded, as far as the arguments of the call decide it."""
    if use_plan is None:
        use_plan = os.environ.get("TORCHGGUF_PLAN") != "0"
    states = any(getattr(config, f"output_{name}") for name in _STATES)
    return use_plan and config.use_cache is not False and not states and (config.num_beams or 1) == 1


def merged(own: Sequence[Any], custom: Sequence[Any]) -> list[Any]:
    """Return own processors or criteria and those of the call, which replace own ones of the same class."""
    classes = {type(each).__name__: each for each in reversed(custom)}
    left = [each for each in custom if type(each).__name__ not in {type(one).__name__ for one in own}]
    return [classes.get(type(each).__name__, each) for each in own] + left


def _beside(
    model: Any, prompts: Prompts, position_ids: Tensor | None, token_type_ids: Tensor | None
) -> dict[str, Tensor]:
    """Return what the call states of each position and the model reads, in the order of the prompts."""
    given = {"position_ids": position_ids, "token_type_ids": token_type_ids}
    if "token_type_ids" not in getattr(model, "argument_order", ()):
        del given["token_type_ids"]
    beside = {}
    for name, value in given.items():
        if value is None:
            continue
        if value.dim() != 2 or value.shape[1] != prompts.length:
            raise ValueError(
                f"{name} must have shape (batch, {prompts.length}), as the prompts, not {tuple(value.shape)}"
            )
        beside[name] = prompts.aligned(value.to(prompts.tokens.device))
    return beside


def _within_context(model: Any, length: int, new: int) -> int:
    """Return how many tokens may follow a prompt, and warn if the model was not made for so long a text."""
    limit = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    if not isinstance(limit, int) or length + new <= limit:
        return new
    words = f"the prompt has {length} tokens, and up to {new} may follow, but the model's context is {limit}"
    # The last token is never read, and needs no position.
    if not getattr(getattr(model, "base_model", model), "ends_with_context", False):
        warnings.warn(f"{words}: beyond it the text may become poor", UserWarning, stacklevel=5)
        return new
    if length > limit:
        raise ValueError(f"the prompt has {length} tokens, but the model's context is {limit}: shorten it")
    if length + new - 1 > limit:
        new = limit + 1 - length
        warnings.warn(f"{words}: texts end there", UserWarning, stacklevel=5)
    return new


def _beam_search(model: Any, plan: Plan, config: GenerationConfig, beams: int, sequences: int) -> BeamSearch:
    return BeamSearch(
        plan,
        num_beams=beams,
        num_return_sequences=sequences,
        length_penalty=1.0 if config.length_penalty is None else config.length_penalty,
        early_stopping=config.early_stopping or False,
        fill=_beam_filling(model, config) if plan.criteria else 0,
        candidates=max(2, 1 + len(config.eos_token_ids)) * beams,
    )


def _new_tokens(config: GenerationConfig, prompt_length: int) -> int:
    if config.max_new_tokens is not None:
        return config.max_new_tokens
    if config.max_length is None:
        return DEFAULT_NEW_TOKENS
    if config.max_length <= prompt_length:
        raise ValueError(
            f"max_length={config.max_length} leaves no room after a prompt of {prompt_length} tokens; "
            "max_new_tokens does not count the prompt"
        )
    return config.max_length - prompt_length


def _new_cache(model: Any, config: GenerationConfig, room: int) -> Cache | None:
    """Return an empty cache, or None where the model makes one itself."""
    if config.cache_implementation != "static":
        return None
    return StaticCache(model.config, max(room, config.max_cache_len or 0))


def _check_cache(cache: Cache, config: GenerationConfig, prompts: Prompts, room: int) -> None:
    if config.use_cache is False:
        raise ValueError("cache needs use_cache=True")
    if config.cache_implementation is not None:
        raise ValueError("cache and cache_implementation exclude each other: leave one of them out")
    places = torch.arange(prompts.length, device=prompts.tokens.device)
    if prompts.order is not None and bool((prompts.order != places).any()):
        raise ValueError("with a cache, prompts must be padded on the left, got padding on the right")
    if cache.get_seq_length() >= prompts.length:
        raise ValueError(
            f"the cache holds {cache.get_seq_length()} tokens, input_ids only {prompts.length}: "
            "input_ids must be the whole text, with at least one new token"
        )
    if cache.capacity is not None and cache.capacity < room:
        raise ValueError(f"the cache has max_cache_len={cache.capacity}, the text needs {room}")


def _criteria(config: GenerationConfig, tokenizer: Decoder | None) -> list[Criterion]:
    criteria: list[Criterion] = []
    if config.max_time is not None:
        criteria.append(MaxTimeCriteria(config.max_time))
    if config.stop_strings:
        if tokenizer is None:
            raise ValueError("stop_strings need the tokenizer: generate(..., tokenizer=tok)")
        criteria.append(StopStringCriteria(tokenizer, config.stop_strings))
    if config.eos_token_ids:
        criteria.append(EosTokenCriteria(config.eos_token_ids))
    return criteria


def _filling(model: Any, config: GenerationConfig) -> int:
    """Return the token that fills up rows that end before others; like all tokens, the model reads it."""
    pad, size = config.pad_token_id, vocabulary_size(model)
    usable = [t for t in config.eos_token_ids if size is None or t < size]
    if pad is not None and pad >= 0 and (size is None or pad < size):
        return pad
    if not usable:
        raise ValueError(
            "rows may end at different lengths: set pad_token_id, which fills them up"
            + ("" if pad is None else f"; {pad} is outside the vocabulary")
        )
    if pad is not None:
        warnings.warn(
            f"pad_token_id={pad} is outside the vocabulary: rows are filled up with eos_token_id={usable[0]}",
            UserWarning,
            stacklevel=5,
        )
    return usable[0]


def _beam_filling(model: Any, config: GenerationConfig) -> int:
    """Return the same for beams: here a padding token of 0 is ignored, as in transformers."""
    ends = config.eos_token_ids
    return ends[0] if ends and config.pad_token_id == 0 else _filling(model, config)


def _record(config: GenerationConfig, states: Sequence[str]) -> Record | None:
    if not config.return_dict_in_generate:
        return None
    flags = {name: getattr(config, f"output_{_FLAGS.get(name, name)}") for name in states}
    steps = [name for name in ("scores", "logits") if getattr(config, f"output_{name}")]
    return Record(steps, [name for name, is_wanted in flags.items() if is_wanted])
