"""The types of keys are those with which gguf-py, llama.cpp's own writer, writes them."""

import inspect

import gguf
import pytest

from torchgguf.container import ArrayType, ValueType
from torchgguf.container.editing.stated_types import stated_type

VALUES = {"str": "x", "int": 1, "float": 1.0, "bool": True, "Sequence[str]": ["x"]}


def keys_of_gguf_py():
    """All keys that its methods write of values of plain types, with their types."""
    for name, method in inspect.getmembers(gguf.GGUFWriter, inspect.isfunction):
        parameters = list(inspect.signature(method).parameters.values())[1:]
        annotations = [str(each.annotation) for each in parameters if each.default is inspect.Parameter.empty]
        if not name.startswith("add_") or not VALUES.keys() >= set(annotations):
            continue
        writer = gguf.GGUFWriter(None, "llama")
        writer.kv_data = [{}]
        method(writer, *(VALUES[annotation] for annotation in annotations))
        for key, value in writer.kv_data[0].items():
            kind = ValueType(value.type)
            if key != "x" and not key.startswith("clip."):  # the file of an eye or an ear, not of a model
                yield key, ArrayType(ValueType.STRING) if kind is ValueType.ARRAY else kind


KEYS = dict(keys_of_gguf_py())


def test_gguf_py_has_been_asked():
    assert {"general.version", "general.tags", "llama.rope.freq_base", "general.sampling.temp"} <= KEYS.keys()


@pytest.mark.parametrize("key", KEYS)
def test_types_are_those_of_gguf_py(key):
    told_by_value = KEYS[key] in (ValueType.UINT32, ArrayType(ValueType.STRING))
    may_be_unstated = told_by_value and not key.startswith("general.")
    assert stated_type(key) == KEYS[key] or (stated_type(key) is None and may_be_unstated)


@pytest.mark.parametrize(
    "key", ["general", "general.names", "x.general.name", "llama.block_count", "a.b.c", ""]
)
def test_of_other_keys_nothing_is_stated(key):
    assert stated_type(key) is None
