"""From the arguments of `generate` to what will decode: prompts, config, cache, processors, criteria."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchgguf.generation.beams import BeamSearch
from torchgguf.generation.configuration import GenerationConfig
from torchgguf.generation.context import Context, align_left
from torchgguf.generation.decoding import Decoding
from torchgguf.generation.logits_process import Processor, processors_for
from torchgguf.generation.logits_warp import warpers_for
from torchgguf.generation.outputs import Record
from torchgguf.generation.plan import Plan
from torchgguf.generation.resolution import DEFAULT_NEW_TOKENS, resolve
from torchgguf.generation.stopping import Criterion, EosTokenCriteria, MaxTimeCriteria, StopStringCriteria
from torchgguf.generation.streamers import Decoder
from torchgguf.nn import Cache, StaticCache, accept_second_names

_STATES = ("hidden_states", "attentions")


@dataclass(frozen=True)
class Prepared:
    """What `generate` does.

    Attributes:
        prompts: `(batch, length)`, once for each sequence asked for.
        run: what continues them.
    """

    prompts: Tensor
    run: Decoding | BeamSearch


@accept_second_names
def prepare(
    model: Any,
    input_ids: Tensor | None,
    *,
    attention_mask: Tensor | None = None,
    generation_config: GenerationConfig | None = None,
    generator: torch.Generator | None = None,
    tokenizer: Decoder | None = None,
    cache: Cache | None = None,
    logits_processor: Sequence[Processor] | None = None,
    stopping_criteria: Sequence[Criterion] | None = None,
    **settings: Any,
) -> Prepared:
    """Prepare what a call asks for; arguments and errors are those of `GenerationMixin`."""
    own = model.generation_config or GenerationConfig.from_model_config(model.config)
    config = resolve(own, generation_config, settings)
    prompts = _prompts(input_ids, config).to(getattr(model, "device", None))
    mask = _guess_mask(prompts, config) if attention_mask is None else attention_mask
    tokens, padding = align_left(prompts, mask)
    length = prompts.shape[1]
    beams, sequences = config.num_beams or 1, config.num_return_sequences or 1
    repeats = max(beams, sequences)
    new = _new_tokens(config, length)
    room = length + new - 1  # the last token is never read
    if cache is not None:
        _check_cache(cache, config, prompts, tokens, room)

    paddings = None if padding is None else padding.repeat_interleave(repeats)
    record = _record(config)
    context = Context(
        model=model,
        input_ids=tokens,
        padding=padding,
        cache=_new_cache(model, config, room) if cache is None else cache,
        use_cache=config.use_cache is not False,
        prefill_chunk_size=config.prefill_chunk_size,
        repeats=repeats,
        wanted=() if record is None else tuple(n for n in _STATES if getattr(config, f"output_{n}")),
    )
    plan = Plan(
        context=context,
        max_new_tokens=new,
        processors=[*processors_for(config, length, length + new, paddings), *(logits_processor or ())],
        warpers=warpers_for(config),
        do_sample=bool(config.do_sample),
        criteria=[*_criteria(config, tokenizer), *(stopping_criteria or ())],
        generator=generator,
        record=record,
        lasting=cache is not None or record is not None,
    )
    prompts = prompts.repeat_interleave(sequences, 0)
    if beams > 1:
        return Prepared(prompts, _beam_search(plan, config, beams, sequences))
    pad = _filling(config) if plan.criteria and len(prompts) > 1 else None
    return Prepared(prompts, Decoding(plan, pad_token_id=pad))


def _beam_search(plan: Plan, config: GenerationConfig, beams: int, sequences: int) -> BeamSearch:
    return BeamSearch(
        plan,
        num_beams=beams,
        num_return_sequences=sequences,
        length_penalty=1.0 if config.length_penalty is None else config.length_penalty,
        early_stopping=config.early_stopping or False,
        fill=_beam_filling(config) if plan.criteria else 0,
        candidates=max(2, 1 + len(config.eos_token_ids)) * beams,
    )


def _prompts(input_ids: Tensor | None, config: GenerationConfig) -> Tensor:
    if input_ids is None:
        if config.bos_token_id is None:
            raise ValueError(
                "without input_ids the text starts from the bos token, but bos_token_id is not set"
            )
        return torch.tensor([[config.bos_token_id]])
    if input_ids.dim() != 2 or input_ids.shape[1] == 0:
        raise ValueError(
            f"input_ids must have shape (batch, length), length above 0, not {tuple(input_ids.shape)}"
        )
    return input_ids


def _guess_mask(prompts: Tensor, config: GenerationConfig) -> Tensor | None:
    """Return a mask that hides padding tokens, unless they may end a text as well."""
    pad = config.pad_token_id
    return None if pad is None or pad in config.eos_token_ids else (prompts != pad).long()


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


def _check_cache(cache: Cache, config: GenerationConfig, prompts: Tensor, aligned: Tensor, room: int) -> None:
    if config.use_cache is False:
        raise ValueError("cache needs use_cache=True")
    if config.cache_implementation is not None:
        raise ValueError("cache and cache_implementation exclude each other: leave one of them out")
    if aligned is not prompts and not torch.equal(aligned, prompts):
        raise ValueError("with a cache, prompts must be padded on the left, got padding on the right")
    if cache.get_seq_length() >= prompts.shape[1]:
        raise ValueError(
            f"the cache holds {cache.get_seq_length()} tokens, input_ids only {prompts.shape[1]}: "
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


def _filling(config: GenerationConfig) -> int:
    """Return the token that fills up rows that end before others."""
    if config.pad_token_id is not None:
        return config.pad_token_id
    if not config.eos_token_ids:
        raise ValueError("rows may end at different lengths: set pad_token_id, which fills them up")
    return config.eos_token_ids[0]


def _beam_filling(config: GenerationConfig) -> int:
    """Return the same for beams: here a padding token of 0 is ignored, as in transformers."""
    ends = config.eos_token_ids
    return config.pad_token_id or ends[0] if ends else _filling(config)


def _record(config: GenerationConfig) -> Record | None:
    if not config.return_dict_in_generate:
        return None
    return Record(name for name in ("scores", "logits", *_STATES) if getattr(config, f"output_{name}"))
