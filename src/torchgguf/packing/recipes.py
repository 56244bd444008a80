"""Recipes: the new type of each tensor in a file, from its role and its position in the model.

A line of the table lists cases for roles, separated by spaces. A tensor gets the first type whose conditions
are true (they follow a colon, joined by `&`), or else the type of the recipe. For example
`attn_v="Q5_K:first_two Q4_K"` chooses Q5_K for the value projections of the first two layers, and Q4_K for
all others. The output is Q6_K unless the line states another type. Models that differ are in variants.py.

The choices are those of llama-quantize; src/llama-quant.cpp of llama.cpp explains them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gguf import LlamaFileType

from torchgguf.packing.rules import Cases, cases
from torchgguf.quants import QuantType, quant_type


@dataclass(frozen=True, eq=False)
class Recipe:
    """The rules that choose the types of a file.

    Attributes:
        name: such as `"Q4_K_M"`.
        type: the type of most tensors.
        file_type: `general.file_type` of such a file; llama.h: llama_ftype.
        roles: the cases of each role, tried in order; `"rest"` stands for all roles that are not listed.
        needs_importance: names of the types that lose too much without an importance matrix.
    """

    name: str
    type: QuantType
    file_type: int
    roles: Mapping[str, Cases]
    needs_importance: frozenset[str]


def recipe(name: str | Recipe) -> Recipe:
    """Return a recipe by its name or alias, in upper or lower case.

    Raises:
        ValueError: there is no such recipe; the message lists all.
    """
    if isinstance(name, Recipe):
        return name
    key = str(name).upper()
    key = ALIASES.get(key, key)
    if key not in RECIPES:
        raise ValueError(f"unknown quantization {name!r}; known: {', '.join((*RECIPES, *ALIASES))}")
    return RECIPES[key]


def file_type_of(type_name: str) -> int | None:
    """Return `general.file_type` of a file with mostly this type, or None if there is no number for it."""
    known = RECIPES.get(type_name)
    return known.file_type if known is not None and known.type.name == type_name else None


# Numbers of llama.h's llama_ftype with another name, or that the gguf package may not list yet.
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
# Types without a recipe in llama-quantize: every packable tensor gets that type.
SINGLE_TYPES = {name: _recipe(name, output="") for name in ("MXFP4", "NVFP4")}
RECIPES: dict[str, Recipe] = {each.name: each for each in _TABLE} | SINGLE_TYPES
ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}
