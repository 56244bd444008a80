"""Choose the type of a tensor, from a recipe and its exceptions for kinds of models.

The kinds are those that llama-quantize distinguishes (src/llama-quant.cpp and the model types of
src/llama-model.cpp in llama.cpp). Files of any architecture can be packed, so the architectures have their
names in the format, and this package may not have a model for them.
"""

from __future__ import annotations

from collections.abc import Mapping

from torchgguf.packing.recipes import RECIPES, SINGLE_TYPES, Recipe
from torchgguf.packing.rules import Cases, ModelFacts, TensorPlace, cases
from torchgguf.quants import QuantType

Variant = Mapping[str, Mapping[str, Cases]]
"""For each recipe, the roles that get other types."""

# MXFP4_MOE distinguishes experts from other tensors in every model.
_PACKED = tuple(
    each.name
    for each in RECIPES.values()
    if each.type.dtype is None and each.name not in (*SINGLE_TYPES, "MXFP4_MOE")
)

_EIGHT_EXPERTS = {  # the attention is small compared with the experts
    **dict.fromkeys(_PACKED, cases(attn_v="Q8_0", attn_k="Q8_0", attn_output="")),
    **dict.fromkeys(
        ("Q4_K_M", "Q4_K_S", "Q3_K_M", "Q3_K_S", "Q2_K", "IQ4_NL", "IQ4_XS", "IQ3_S", "IQ3_XS", "IQ3_XXS"),
        cases(attn_v="Q8_0", attn_k="Q8_0", attn_output="Q5_K"),
    ),
    "IQ3_M": cases(attn_v="Q8_0", attn_k="Q8_0", attn_output="Q5_K", ffn_down="Q4_K:more_bits"),
    **dict.fromkeys(
        ("IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S"),
        cases(attn_v="Q4_K", attn_k="Q4_K", attn_output="Q5_K"),
    ),
}
_SEVENTY_BILLION = {  # many heads share a few value projections
    **dict.fromkeys(("Q4_K_S", "Q3_K_L", "Q3_K_M", "Q3_K_S", "Q2_K", "IQ3_M"), cases(attn_v="Q5_K")),
    **dict.fromkeys(("Q2_K_S", "IQ3_S", "IQ3_XS"), cases(attn_v="Q5_K:shared_heads")),
    "IQ3_XXS": cases(attn_v="Q5_K:shared_heads IQ3_S:no_imatrix"),
    "Q4_K_M": cases(attn_v="Q6_K:more_bits Q5_K"),
}
_FALCON = {
    **dict.fromkeys(_PACKED, cases(output="Q8_0")),
    **dict.fromkeys(("Q2_K", "IQ3_XXS", "IQ3_M"), cases(output="Q8_0", attn_output="")),
    "Q3_K_L": cases(output="Q8_0", attn_output="Q4_K", ffn_down="Q4_K"),
    "Q3_K_M": cases(output="Q8_0", attn_output="", ffn_down="Q5_K:first_sixteenth Q4_K:more_bits"),
    "Q4_K_M": cases(output="Q8_0", ffn_down="Q6_K:first_sixteenth Q5_K:more_bits"),
    "Q4_K_S": cases(output="Q8_0", ffn_down=""),
}
_EXPERTS_ONLY = "MXFP4:stacked Q8_0"
_BAILINGMOE3 = {  # its other tensors with several matrices are not experts
    "MXFP4_MOE": cases(
        output="Q8_0", rest="Q8_0", ffn_gate=_EXPERTS_ONLY, ffn_up=_EXPERTS_ONLY, ffn_down=_EXPERTS_ONLY
    )
}

_BY_ARCHITECTURE: dict[str, Variant] = {
    "falcon": _FALCON,
    "bailingmoe3": _BAILINGMOE3,
    "glm5-next": dict.fromkeys(_PACKED, cases(attn_q_lora="Q8_0")),
}
_BY_EXPERTS: dict[int, Variant] = {8: _EIGHT_EXPERTS}
# Models of 70 billion weights, by architecture and number of layers. True: only if heads share keys and
# values.
_BY_SIZE: dict[tuple[str, int], tuple[Variant, bool]] = {
    ("llama", 80): (_SEVENTY_BILLION, True),
    ("llama-embed", 80): (_SEVENTY_BILLION, True),
    ("qwen2", 80): (_SEVENTY_BILLION, False),
    ("deci", 80): (_SEVENTY_BILLION, False),
    ("olmo", 80): (_SEVENTY_BILLION, False),
    ("jais2", 68): (_SEVENTY_BILLION, False),
}


def choose(recipe: Recipe, role: str, at: TensorPlace) -> QuantType:
    """Return the type for a tensor, without regard to the length of its rows.

    Args:
        recipe: the recipe.
        role: the role of the tensor, see planning.py.
        at: its position in the model.
    """
    variants = (each[recipe.name] for each in _variants(at.model) if recipe.name in each)
    for roles in (*variants, recipe.roles):
        if (found := roles.get(role, roles.get("rest"))) is not None:
            return next((case.type for case in found if case.holds(at)), recipe.type)
    return recipe.type


def _variants(model: ModelFacts) -> list[Variant]:
    """Return the variants that apply to a model; for each role the first one counts."""
    sized, only_shared = _BY_SIZE.get((model.architecture, model.layers - model.nextn_layers), ({}, False))
    return [
        _BY_ARCHITECTURE.get(model.architecture, {}),
        _BY_EXPERTS.get(model.experts, {}),
        {} if only_shared and model.heads == model.kv_heads else sized,
    ]
