"""Help, version, `info` and `import torchgguf` do not wait for torch."""

import subprocess
import sys
from importlib.metadata import version
from types import FunctionType

import pytest

import torchgguf as package
from tests.cli.conftest import TIMEOUT
from tests.support import SMOLLM2
from torchgguf.tokenization import names


@pytest.mark.parametrize(
    "arguments, shown",
    [
        (["--help"], "--help"),
        ([], "--help"),
        (["run", "--help"], "--help"),
        (["--version"], version("torchgguf")),
        (["info", SMOLLM2], "general.architecture"),
        (["metadata", SMOLLM2, "general.architecture"], "llama"),
        (["split", SMOLLM2, "x", "--max-tensors", "100", "--dry-run"], "x-00003-of-00003.gguf"),
        (["quantize", "--help"], "Q4_K_M"),
        (["imatrix", "--help"], "--text"),
    ],
    ids=lambda value: " ".join(map(str, value[:1])) if isinstance(value, list) else "",
)
def test_what_needs_no_model_is_there_at_once(arguments, shown):
    command = [sys.executable, "-X", "importtime", "-m", "torchgguf", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    assert result.returncode == 0
    assert shown in result.stdout
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "torchgguf.cli" in imported
    assert not {"torch", "transformers", "tokenizers", "torchgguf.models"} & imported


def test_the_package_imports_nothing_until_asked():
    """A name imports what defines it: a file's class no torch, an architecture's class no other one."""
    code = """
import sys, torchgguf
OWN = [name for name in sys.modules if name.startswith("torchgguf.")]
assert sorted(OWN) == ["torchgguf._lazy", "torchgguf._module_paths", "torchgguf._when_imported"], OWN
torchgguf.open_gguf
assert not {"torch", "torchgguf.models"} & sys.modules.keys()
torchgguf.Qwen3Config
names = [name for name in sys.modules if name.startswith("torchgguf.models.architectures.")]
assert names == ["torchgguf.models.architectures.qwen3"], names
assert "transformers" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=TIMEOUT)


def test_public_names_are_there():
    # transformers has a class of tokenizers for each model, and this package one
    aliases = {name: "Tokenizer" for name, value in vars(names).items() if value is package.Tokenizer}
    aliases |= {"GPT2TokenizerFast": "GPT2Tokenizer", "tokenizer_from_gguf": "from_gguf"}
    # transformers' second names
    aliases |= {"NerPipeline": "TokenClassificationPipeline", "PretrainedConfig": "PreTrainedConfig"}
    for name in package.__all__:
        value = getattr(package, name)
        if isinstance(value, type | FunctionType):
            assert value.__name__ == aliases.get(name, name)
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match="'torchgguf' has no attribute 'nonsense'"):
        _ = package.nonsense
