"""Which tensor becomes which type: as llama-quantize says, for all its recipes.

`recipes.json.gz` holds what it said, run on true files by tests/goldens/recipes.py: for each model the
metadata that count, the names, shapes and types of all tensors and, for every recipe, with an importance
matrix and without, with options and without, a letter a tensor for its new type.
"""

import gzip
import json

import pytest

from tests.support import ROOT
from torchgguf.packing import RECIPES, plan_types, recipe
from torchgguf.packing.recipes import ALIASES

GOLDEN = json.loads(gzip.decompress((ROOT / "tests" / "data" / "recipes.json.gz").read_bytes()))
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
OURS = {"MXFP4", "NVFP4"}  # of which llama-quantize makes no files


@pytest.mark.parametrize("name", GOLDEN["models"])
def test_types_are_those_that_llama_quantize_chooses(name):
    model = GOLDEN["models"][name]
    shapes = {name: tuple(shape) for name, shape, _ in model["tensors"]}
    for recipe_name, has_imatrix, options, letters in model["plans"]:
        plan = plan_types(recipe(recipe_name), model["metadata"], shapes, has_imatrix=has_imatrix, **options)
        expected = {
            name: GOLDEN["types"][LETTERS.index(letter)] for name, letter in zip(shapes, letters, strict=True)
        }
        found = {name: plan[name].type.name if name in plan else old for name, _, old in model["tensors"]}
        assert found == expected, (recipe_name, has_imatrix, options)


def test_all_recipes_are_proven():
    asked = {plan[0] for model in GOLDEN["models"].values() for plan in model["plans"]}
    assert {recipe(name).name for name in asked} == RECIPES.keys() - OURS
    assert asked >= ALIASES.keys()
