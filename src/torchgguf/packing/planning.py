"""Choose the type of each tensor: by the recipe, by the user's options, and by what row lengths allow."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from torchgguf.packing.recipes import Recipe
from torchgguf.packing.rules import ModelFacts, TensorPlace
from torchgguf.packing.variants import choose
from torchgguf.quants import QuantType, QuantTypeLike, quant_type

_logger = logging.getLogger(__name__)

#: Patterns that match anywhere in the name of a tensor, each with the type of these tensors.
Overrides = Sequence[tuple[str, QuantTypeLike]]

# Roles by the names of tensors. The first match counts, and all other tensors have the role "other".
_ROLES = {
    role: re.compile(pattern)
    for role, pattern in {
        "output": r"^output\.weight$",
        "token_embd": r"^(per_layer_)?token_embd\.weight$",
        "attn_v": r"attn_(qkv|kv_b|v)\.weight",
        "attn_k": r"attn_k\.weight",
        "attn_q": r"attn_q\.weight",
        "attn_q_lora": r"attn_q_[ab]|nextn\.eh_proj",
        "attn_output": r"attn_output\.weight",
        "ffn_up": r"ffn_up",
        "ffn_gate": r"ffn_gate",
        "ffn_down": r"ffn_down",
    }.items()
}

# Matrices that are never packed: small ones, critical ones, and those that llama.cpp reads in one type only.
_KEPT = (
    r"(?<!weight)$",
    r"_norm\.weight$",
    r"position_embd|token_types",  # looked up by position
    r"ffn_gate_inp|ffn_gate_tid2eid",  # choices of experts
    r"attn_rel_b\.weight",  # T5's biases by distance
    r"altup|laurel|per_layer_model_proj",  # Gemma 3n
    r"ssm_conv1d|shortconv\.conv\.weight",  # short convolutions: Mamba, LFM2
    r"time_mix_(first|[wva][012]|g[12]|decay_w[12]|lerp_fused)\.weight",  # RWKV
    r"indexer\.[kq]_proj\.weight",  # MiniMax
    r"sam\.pos_embd|sam\.neck\.|sam\.net_|\.rel_pos|\.patch_embd|\.patch_merger",  # images
    r"a\.rvq\.codebook|mm\.a\.code_embd",  # sounds
)
_KEPT_BY_ARCHITECTURE = {
    "glm5-next": (
        r"hc_|indexer\.(attn_q_b|attn_k|proj)|indexer_compressor_(gate|ape)",
        r"ssm_([fg]_[ab]|beta)\.weight|attn_(kv_a_mqa|k_b|v_b)\.weight",
    ),
}

# Types for rows that do not divide into blocks. For Q1_0 and NVFP4 llama-quantize has none and fails.
_FALLBACKS = {
    **dict.fromkeys(("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS"), "IQ4_NL"),
    **dict.fromkeys(("Q1_0", "Q2_0", "Q2_K", "Q3_K", "TQ1_0", "TQ2_0"), "Q4_0"),
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
    "NVFP4": "MXFP4",
}


_HEAD, _EMBEDDING = "output.weight", "token_embd.weight"
_OF_EVERY_LAYER = ("ffn_up", "ffn_gate", "ffn_down")


class Choice(NamedTuple):
    """The new type of a tensor.

    Attributes:
        type: the new type.
        wanted: the type before the fallback; it differs if rows do not divide into its blocks.
        needs_importance: whether packing to `type` requires importances.
    """

    type: QuantType
    wanted: QuantType
    needs_importance: bool = False


def plan_types(
    recipe: Recipe,
    metadata: Mapping[str, Any],
    tensors: Mapping[str, tuple[int, ...]],
    *,
    has_imatrix: bool = False,
    overrides: Overrides = (),
    output_type: QuantTypeLike | None = None,
    token_embedding_type: QuantTypeLike | None = None,
    pure: bool = False,
    leave_output: bool = False,
) -> dict[str, Choice]:
    """Choose the types of a file's tensors, as llama-quantize does.

    Args:
        recipe: the rules.
        metadata: the metadata of the file, of any architecture.
        tensors: the shapes of all tensors in the file, in torch's order.
        has_imatrix: whether there is an importance matrix.
        overrides: types by pattern, which replace those of the recipe; the first matching pattern counts.
        output_type: the type of the head, and of the token embeddings if the head is tied to them.
        token_embedding_type: the type of the token embeddings.
        pure: whether all tensors get the main type of the recipe, except for the options above.
        leave_output: whether the head is not packed.

    Returns:
        The choices by name, in the order of `tensors`, without tensors that are never packed.

    Raises:
        ValueError: a pattern is invalid, or matches no tensor that can be packed.
    """
    facts = model_facts(metadata)
    names = [
        name
        for name, shape in tensors.items()
        if is_packable(name, shape, facts.architecture) and not (leave_output and name == _HEAD)
    ]
    tied = _HEAD not in tensors
    asked = _asked(recipe, names, tied, overrides, output_type, token_embedding_type, pure)
    layers = Counter(dict.fromkeys(_OF_EVERY_LAYER, facts.layers))
    layers["attn_v"] = sum(_role(name) == "attn_v" for name in tensors)
    before = Counter[str]()
    choices = {}
    for name in sorted(names, key=_visiting_order):
        shape, role = tensors[name], _role(name)
        if (wanted := asked.get(name)) is not None:
            fitting = fitting_type(wanted, shape[-1])
        else:
            role = "output" if tied and role == "token_embd" else role
            by_name = facts.experts > 1 and role in _OF_EVERY_LAYER
            layer = _layer(name) if by_name else before[role]
            matrices = shape[-3] if len(shape) > 2 else 1
            place = TensorPlace(facts, layer, layers[role], before[role], matrices, has_imatrix)
            wanted = choose(recipe, role, place)
            odd_head = role == "output" and shape[-1] % recipe.type.block_size
            fitting = fitting_type(quant_type("Q8_0") if odd_head else wanted, shape[-1])
            before[role] += 1
        choices[name] = Choice(fitting, wanted, _needs_importance(recipe, name, fitting))
    return {name: choices[name] for name in names}


def log_fallbacks(choices: Iterable[Choice]) -> None:
    """Log in one line which types were replaced."""
    fallen = Counter(f"{fit.name} for {wanted.name}" for fit, wanted, _ in choices if fit is not wanted)
    if fallen:
        swaps = ", ".join(f"{swap} in {count}" for swap, count in fallen.items())
        _logger.warning(
            "rows of some tensors do not divide into blocks of the recipe's types, replaced: %s", swaps
        )


def model_facts(metadata: Mapping[str, Any]) -> ModelFacts:
    """Read the properties that types depend on from the metadata of a file; missing ones are 0.

    Raises:
        ValueError: a property is not a number.
    """
    architecture = str(metadata.get("general.architecture", ""))

    def number(key: str, default: int = 0) -> int:
        stated = metadata.get(f"{architecture}.{key}", default)
        value = next(iter(stated), default) if isinstance(stated, list) else stated
        if not isinstance(value, int):
            raise ValueError(f"{architecture}.{key} must be an integer, got {value!r}")
        return value

    heads = number("attention.head_count")
    return ModelFacts(
        architecture,
        layers=number("block_count") * number("num_loops", 1),
        nextn_layers=number("nextn_predict_layers"),
        experts=number("expert_count"),
        heads=heads,
        kv_heads=number("attention.head_count_kv", heads),
    )


def is_packable(name: str, shape: Sequence[int], architecture: str = "") -> bool:
    """Return whether a tensor can be packed: all matrices can, except for those that `stays_wide` names."""
    dimensions = next((len(shape) - i for i, size in enumerate(shape) if size > 1), 1)
    return dimensions > 1 and not stays_wide(name, architecture)


def stays_wide(name: str, architecture: str = "") -> bool:
    """Return whether a tensor of this name is never packed."""
    return re.search("|".join((*_KEPT, *_KEPT_BY_ARCHITECTURE.get(architecture, ()))), name) is not None


def _role(name: str) -> str:
    return next((role for role, pattern in _ROLES.items() if pattern.search(name)), "other")


def _layer(name: str) -> int:
    found = re.match(r"blk\.(\d+)", name)
    return int(found[1]) if found else -1


def _visiting_order(name: str) -> tuple[int, str]:
    """Return a sort key: tensors outside of layers first, then layers by number; in each by name."""
    return _layer(name), name


def _asked(
    recipe: Recipe,
    names: Sequence[str],
    tied: bool,
    overrides: Overrides,
    output_type: QuantTypeLike | None,
    token_embedding_type: QuantTypeLike | None,
    pure: bool,
) -> dict[str, QuantType]:
    """Return the types that the options choose instead of the recipe, by name of the tensor."""
    asked = dict.fromkeys(names, recipe.type) if pure else {}
    embeddings = [name for name in names if _role(name) == "token_embd"]
    if output_type is not None and tied and not pure:
        asked |= dict.fromkeys(embeddings, quant_type(output_type))
    overridden = overridden_types(names, overrides)
    asked |= overridden
    if token_embedding_type is not None:
        # Embeddings for each layer are another tensor, and patterns may override them.
        own = [name for name in embeddings if name == _EMBEDDING or name not in overridden]
        asked |= dict.fromkeys(own, quant_type(token_embedding_type))
    if output_type is not None and _HEAD in names:
        asked[_HEAD] = quant_type(output_type)
    return asked


def overridden_types(names: Sequence[str], overrides: Overrides) -> dict[str, QuantType]:
    """Return the types of the tensors that patterns match, by name; the first pattern that matches counts.

    Raises:
        ValueError: a pattern is invalid, or matches none of the names.
    """
    overridden: dict[str, QuantType] = {}
    for pattern, kind in reversed(overrides):  # so that the first pattern wins
        found = [name for name in names if _compiled(pattern).search(name)]
        if not found:
            raise ValueError(f"the pattern {pattern!r} matches no tensor that can be packed")
        overridden |= dict.fromkeys(found, quant_type(kind))
    return overridden


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise ValueError(f"the pattern {pattern!r} is invalid: {error}") from None


def fitting_type(wanted: QuantType, columns: int) -> QuantType:
    """Return the type or, if rows do not divide into its blocks, the fallback of llama-quantize."""
    for kind in (wanted, quant_type(_FALLBACKS.get(wanted.name, wanted.name))):
        if columns % kind.block_size == 0:
            return kind
    return quant_type("F16")


def _needs_importance(recipe: Recipe, name: str, kind: QuantType) -> bool:
    if _role(name) in ("output", "token_embd"):
        return kind.needs_importance
    return kind.name in recipe.needs_importance
