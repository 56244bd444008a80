"""The registry, the folder of architectures and the public names are the same list."""

import ast
import subprocess
import sys

import pytest

import torchgguf.models
from tests.models.classes import ARCHITECTURES, CLASSES
from tests.support import ROOT
from torchgguf._lazy import read_stub
from torchgguf.models import registry

ENDS = ("Config", "Model", "ForCausalLM", "ForConditionalGeneration", "Output")
FOLDER = ROOT / "src" / "torchgguf" / "models" / "architectures"


def test_every_architecture_has_a_row():
    defined = {
        path.stem
        for path in FOLDER.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Architecture"
    }
    assert {*registry.MODEL_TYPES} == defined
    assert len(registry.MODEL_TYPES) == len(defined)
    for gguf, model_types in registry.ROWS.items():
        for model_type in model_types:
            found = registry.architectures_of_type(model_type)
            assert {architecture.config_class.model_type for architecture in found} == {model_type}
            assert [each for each in found if gguf in (each.gguf, *each.other_ggufs)]


def test_every_class_is_public():
    modules = read_stub("torchgguf.models")
    defined = {
        node.name: f"torchgguf.models.architectures.{path.stem}"
        for path in FOLDER.glob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and node.name.endswith(ENDS)
    }
    assert defined.items() <= modules.items()
    for model_class in CLASSES:
        assert getattr(torchgguf.models, model_class.__name__) is model_class
        assert model_class.architecture in ARCHITECTURES


@pytest.mark.parametrize("model_type", ["qwen3", "gpt2"])
def test_only_the_architecture_asked_for_is_imported(model_type):
    code = f"""
import sys
from torchgguf import AutoConfig
AutoConfig.for_model({model_type!r})
print(*(name for name in sys.modules if name.startswith("torchgguf.models.architectures.")))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == [f"torchgguf.models.architectures.{model_type}"]


def test_loading_does_not_import_the_compiler():
    """Torch imports it for random numbers without memory; it takes longer than all else."""
    code = """
import sys, warnings
warnings.simplefilter("ignore")
from torchgguf import AutoModelForCausalLM
for path in sys.argv[1:]:
    AutoModelForCausalLM.from_pretrained(path)
    assert "torch._dynamo" not in sys.modules, path
"""
    files = [str(path) for path in (ROOT / "fuzz" / "corpus").glob("[!v]*.gguf")]
    assert len(files) > 9
    subprocess.run([sys.executable, "-c", code, *files], check=True)
