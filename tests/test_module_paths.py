"""Names under the paths that scripts import them from: transformers' own, asked of transformers."""

import subprocess
import sys
from importlib import import_module

import pytest
import transformers

import torchgguf
from torchgguf._lazy import read_stub

NAMES = read_stub("torchgguf")
# Where transformers defines those of our names that it has too.
HOMES = {name: home for name in NAMES if (home := transformers._class_to_module.get(name)) is not None}
# Paths that tutorials use for names that are defined elsewhere.
MORE = {
    "utils": ("logging", "ModelOutput"),
    "utils.logging": ("get_logger", "set_verbosity_error"),
    "models.auto": ("AutoModelForCausalLM", "AutoConfig"),
    "models.llama": ("LlamaForCausalLM", "LlamaConfig"),
    "generation": ("GenerationMixin", "GenerationConfig", "TextStreamer"),
    "pytorch_utils": ("Conv1D",),
    "trainer_utils": ("set_seed",),
    "modeling_utils": ("PreTrainedModel",),
}


@pytest.mark.parametrize("name", sorted(HOMES))
def test_where_transformers_has_it(name):
    assert getattr(import_module(f"torchgguf.{HOMES[name]}"), name) is getattr(torchgguf, name)


def test_other_paths():
    for path, names in MORE.items():
        for name in names:
            assert hasattr(import_module(f"transformers.{path}"), name), (path, name)
            assert hasattr(import_module(f"torchgguf.{path}"), name), (path, name)


def test_the_forms_of_the_statement():
    import torchgguf.models.llama.modeling_llama as module
    from torchgguf.utils import logging

    from torchgguf.models import llama

    assert module.LlamaForCausalLM is torchgguf.LlamaForCausalLM is llama.modeling_llama.LlamaForCausalLM
    assert logging is torchgguf.logging
    assert "LlamaModel" in dir(module)


@pytest.mark.parametrize("path", ["nothing", "models.opt", "models.llama.modeling_opt", "models.llama.x.y"])
def test_unknown_paths(path):
    with pytest.raises(ModuleNotFoundError, match="torchgguf"):
        import_module(f"torchgguf.{path}")


def test_unknown_names():
    with pytest.raises(ImportError, match="cannot import name 'Nothing'"):
        exec("from torchgguf.cache_utils import Nothing")
    with pytest.raises(ImportError, match="cannot import name 'Nothing'"):
        exec("from torchgguf import Nothing")


def imported(statement: str) -> set[str]:
    """Return the packages that a new process has imported after a statement."""
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    return {*subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split()}


@pytest.mark.parametrize(
    "statement",
    [
        "import torchgguf",
        "import torchgguf.models.llama.modeling_llama",
        "from torchgguf.utils import logging",
    ],
)
def test_nothing_large_is_imported_before_a_name_is_used(statement):
    assert not imported(statement) & {"torch", "transformers", "numpy", "tokenizers", "gguf"}


def test_all_names_load_without_transformers():
    """Only names that are transformers' own need it, and a star does not import those."""
    block = "import sys; sys.modules['transformers'] = None; from torchgguf import *; LlamaModel, Pipeline"
    assert "torch" in imported(block)
    own = {name for name, path in NAMES.items() if path.startswith("torchgguf")}
    assert {*torchgguf.__all__} == own
    assert torchgguf.Trainer is transformers.Trainer
