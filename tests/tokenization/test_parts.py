"""A tokenizer is a face of parts: what it imports, what copies share, what its methods document."""

import copy
import inspect
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import VOCABS
from torchgguf.tokenization import Tokenizer
from torchgguf.tokenization.chat.templates import ChatTemplates
from torchgguf.tokenization.encoding.encoder import Encoder

_READING = """
import sys
from torchgguf.tokenization import AutoTokenizer
for place in sys.argv[1:]:
    tokenizer = AutoTokenizer.from_pretrained(place)
    tokenizer.decode(tokenizer.encode("Hello"))
    tokenizer.to_gguf()
    tokenizer.save_pretrained(sys.argv[-1])
assert "jinja2" not in sys.modules
tokenizer.apply_chat_template([{"role": "user", "content": "x"}], chat_template="{{ messages[0].content }}")
assert "jinja2" in sys.modules
"""


def test_files_are_read_and_written_without_jinja(tmp_path: Path) -> None:
    file = VOCABS / "ggml-vocab-gpt-2.gguf"
    arguments = [str(place) for place in (file, tmp_path)]
    # The folder is written from the file before it is read.
    subprocess.run([sys.executable, "-c", _READING, *arguments], check=True)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
def test_copies_share_nothing_that_changes(
    smollm2: Tokenizer, copied: Callable[[Tokenizer], Tokenizer]
) -> None:
    before = smollm2.to_gguf(), smollm2("a").input_ids, smollm2.padding_side, smollm2.chat_template
    other = copied(smollm2)
    other.padding_side = "left"
    other.add_eos_token = True
    other.chat_template = "x"
    other.errors = "ignore"
    other.bos_token = None
    assert other.add_tokens(["<new>"]) == 1
    assert other("<new>").input_ids[0] == len(smollm2)
    assert (len(other), other.padding_side, other.chat_template) == (len(smollm2) + 1, "left", "x")
    after = smollm2.to_gguf(), smollm2("a").input_ids, smollm2.padding_side, smollm2.chat_template
    assert after == before
    assert (smollm2.errors, smollm2.add_eos_token) == ("replace", False)
    assert smollm2.bos_token is not None


def test_methods_are_those_of_the_parts() -> None:
    for part, name in [(Encoder, "__call__"), (Encoder, "pad"), (ChatTemplates, "apply_chat_template")]:
        method = getattr(Tokenizer, name)
        assert inspect.signature(method) == inspect.signature(getattr(part, name))
        assert method.__doc__ == getattr(part, name).__doc__
