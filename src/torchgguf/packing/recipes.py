"""Recipes: what type each tensor of a file becomes, by its role and its place in the model.

A line of the table is read from left to right: a tensor in a role takes the first type whose conditions hold
(they stand after a colon, joined by `&`) and, where none do, the recipe's own. So `attn_v="Q5_K:first_two
Q4_K"` makes the value projections of the first two layers Q5_K, and those of all others Q4_K. The output is
Q6_K where a line does not say. Kinds of models that differ stand in variants.py.

What is chosen is what llama-quantize chooses; its reasons are in src/llama-quant.cpp of llama.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gguf import LlamaFileType

from torchgguf.packing.rules import Cases, cases
from torchgguf.quants import QuantType, quant_type


@dataclass(frozen=True, eq=False)
class Recipe:
    """How to choose the types of a file.

    Attributes:
        name: such as `"Q4_K_M"`.
        type: what most tensors become.
        file_type: `general.file_type` of such a file; llama.h: llama_ftype.
        roles: the cases for the tensors of a role, which are tried in turn; for `"rest"` those of all roles
            that are not named.
        needs_importance: names of the types that lose too much where no importances are known.
    """

    name: str
    type: QuantType
    file_type: int
    roles: Mapping[str, Cases]
    needs_importance: frozenset[str]


def recipe(name: str | Recipe) -> Recipe:
    """Return the recipe of this name, in any case, or of this alias; else a ValueError that lists all."""
    if isinstance(name, Recipe):
        return name
    key = str(name).upper()
    key = ALIASES.get(key, key)
    if key not in RECIPES:
        raise ValueError(f"unknown quantization {name!r}: known are {', '.join((*RECIPES, *ALIASES))}")
    return RECIPES[key]


def file_type_of(type_name: str) -> int | None:
    """Return `general.file_type` of a file whose tensors are mostly of one type; None if there is none."""
    known = RECIPES.get(type_name)
    return known.file_type if known is not None and known.type.name == type_name else None


# Of llama.h's llama_ftype, those that are called otherwise, or that the gguf package may not know yet.
_FILE_TYPES = {
    "F32": LlamaFileType.ALL_F32.value,
    "MXFP4": LlamaFileType.MOSTLY_MXFP4_MOE.value,
    "Q2_0": 41,
}
_NEEDS_IMPORTANCE = frozenset({"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS"})


def _recipe(name: str, own: str = "", output: str = "Q6_K", needs: str = "", **roles: str) -> Recipe:
    file_type = _FILE_TYPES[name] if name in _FILE_TYPES else LlamaFileType[f"MOSTLY_{name}"].value
    needing = _NEEDS_IMPORTANCE | {*needs.split()}
    return Recipe(name, quant_type(own or name), file_type, cases(output=output, **roles), needing)


_TABLE = (
    _recipe("F32", output=""),
    _recipe("F16", output=""),
    _recipe("BF16", output=""),
    _recipe("Q8_0", output="Q8_0"),
    _recipe("Q5_1"),
    _recipe("Q5_0", ffn_down="Q5_1:first_eighth&imatrix"),
    _recipe("Q4_1"),
    _recipe("Q4_0", ffn_down="Q4_1:first_eighth&imatrix"),
    _recipe("Q2_0", token_embd="Q4_K"),
    _recipe("Q1_0"),
    _recipe("TQ2_0", token_embd="Q4_K"),
    _recipe("TQ1_0", token_embd="Q4_K"),
    _recipe("MXFP4_MOE", "MXFP4", output="Q8_0", rest="MXFP4:stacked Q8_0"),
    # K-quants.
    _recipe("Q6_K"),
    _recipe("Q5_K_M", "Q5_K", attn_v="Q6_K:more_bits", ffn_down="Q6_K:more_bits"),
    _recipe("Q5_K_S", "Q5_K"),
    _recipe("Q4_K_M", "Q4_K", attn_v="Q6_K:more_bits", ffn_down="Q6_K:more_bits"),
    _recipe("Q4_K_S", "Q4_K", attn_v="Q5_K:first_four", ffn_down="Q5_K:first_eighth"),
    _recipe("Q3_K_L", "Q3_K", attn_v="Q5_K", attn_output="Q5_K", ffn_down="Q5_K"),
    _recipe("Q3_K_M", "Q3_K", attn_v="Q5_K:first_two Q4_K", attn_output="Q4_K",
            ffn_down="Q5_K:first_sixteenth Q4_K"),
    _recipe("Q3_K_S", "Q3_K"),
    _recipe("Q2_K", attn_v="Q4_K:shared_heads Q3_K", attn_output="Q3_K", ffn_down="Q3_K"),
    _recipe("Q2_K_S", "Q2_K", needs="Q2_K", attn_v="Q4_K:shared_heads", ffn_down="Q4_K:first_eighth"),
    # I-quants.
    _recipe("IQ4_NL", attn_v="Q5_K:shared_heads", ffn_down="Q5_K:first_eighth&no_imatrix"),
    _recipe("IQ4_XS", attn_v="Q5_K:shared_heads", ffn_down="Q5_K:first_eighth&no_imatrix"),
    _recipe("IQ3_M", "IQ3_S", attn_v="Q4_K", attn_output="Q4_K", ffn_down="Q4_K:first_eighth"),
    _recipe("IQ3_S", attn_v="Q4_K:shared_heads"),
    _recipe("IQ3_XS", "IQ3_S", attn_q="IQ3_XXS", attn_k="IQ3_XXS", attn_v="Q4_K:shared_heads",
            ffn_gate="IQ3_XXS:middle", ffn_up="IQ3_XXS:middle"),
    _recipe("IQ3_XXS", output="Q5_K", token_embd="IQ3_S", attn_q="IQ2_S", attn_k="IQ2_S",
            attn_v="Q4_K:shared_heads IQ3_S:no_imatrix", attn_output="IQ3_S",
            ffn_down="Q4_K:first_eighth&no_imatrix Q3_K:no_imatrix"),
    _recipe("IQ2_M", "IQ2_S", output="Q5_K", token_embd="IQ3_S", attn_v="Q4_K:small_attention IQ3_S",
            attn_output="IQ3_S", ffn_down="IQ3_S:first_eighth_by_count"),
    _recipe("IQ2_S", "IQ2_XS", output="Q5_K", token_embd="IQ3_S", attn_v="Q4_K:small_attention IQ3_S",
            attn_output="IQ3_S", ffn_down="IQ3_S:first_eighth_by_count"),
    _recipe("IQ2_XS", output="Q5_K", token_embd="Q2_K", attn_v="Q4_K:small_attention Q2_K",
            ffn_down="Q2_K:first_eighth_by_count"),
    _recipe("IQ2_XXS", output="Q5_K", token_embd="Q2_K", attn_v="Q4_K:small_attention Q2_K",
            ffn_down="Q2_K:first_eighth_by_count"),
    _recipe("IQ1_M", output="Q5_K", token_embd="Q2_K", attn_v="Q4_K:small_attention Q2_K",
            attn_output="IQ2_XXS", ffn_down="Q2_K:first_eighth_by_count"),
    _recipe("IQ1_S", output="Q5_K", token_embd="Q2_K", attn_v="Q4_K:small_attention Q2_K",
            attn_output="IQ2_XXS", ffn_down="Q2_K:first_eighth_by_count"),
)  # fmt: skip
# Types that llama-quantize has no recipe for: all that can be packed is of that type.
SINGLE_TYPES = {name: _recipe(name, output="") for name in ("MXFP4", "NVFP4")}
RECIPES: dict[str, Recipe] = {each.name: each for each in _TABLE} | SINGLE_TYPES
ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}
