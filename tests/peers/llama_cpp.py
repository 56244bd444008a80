"""llama.cpp from outside: its converter makes files, its runtime reads them."""

import io
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import sentencepiece
import tokenizers

from tests.support import LLAMA_CPP, ROOT

TEXT = (ROOT / "tests" / "data" / "gpl-3.0.txt").read_text()

VOCAB_SIZE = 400
# Models with a byte-level vocabulary, and how theirs splits texts: the others get one of sentencepiece.
BYTE_LEVEL = {"gpt2": "gpt-2", "bloom": "bloom", "qwen2": "qwen2", "qwen2_moe": "qwen2"}

# The converter takes one model a run, and most of a run is importing. It knows the split of a byte-level
# vocabulary by what published ones make of a text, which ours is none of.
_CONVERT_ALL = """
import runpy, sys
script, *models = sys.argv[1:]
sys.path.insert(0, script.rpartition("/")[0])
from conversion.base import TextModel
for model in models:
    directory, out, type, split = model.split("|")
    TextModel.get_vocab_base_pre = lambda self, tokenizer: split
    sys.argv = [script, directory, "--outfile", out, "--outtype", type]
    runpy.run_path(script, run_name="__main__")
"""


def convert(models: Mapping[str, Any], folder: Path, types: Mapping[str, str]) -> dict[str, Path]:
    """Convert transformers models, each to the type named for it (`f32` if none is)."""
    files = {name: folder / f"{name}.gguf" for name in models}
    for name, model in models.items():
        model.save_pretrained(folder / name)
        add_tokenizer(folder / name, model.config.model_type)
    convert_folders(
        (folder / name, files[name], types.get(name, "f32"), BYTE_LEVEL.get(model.config.model_type, ""))
        for name, model in models.items()
    )
    return files


def add_tokenizer(folder: Path, model_type: str) -> None:
    """Give a folder a tokenizer of the kind that its architecture has."""
    if model_type in BYTE_LEVEL:
        _byte_level().save(str(folder / "tokenizer.json"))
    else:
        (folder / "tokenizer.model").write_bytes(_sentencepiece())


def convert_folders(jobs: Iterable[tuple[Path, Path, str, str]]) -> None:
    """Convert folders to files of a type; `split` says how a byte-level vocabulary splits texts."""
    script = LLAMA_CPP / "convert_hf_to_gguf.py"
    command = [sys.executable, "-c", _CONVERT_ALL, str(script), *("|".join(map(str, job)) for job in jobs)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


@cache
def _byte_level() -> tokenizers.ByteLevelBPETokenizer:
    tokenizer = tokenizers.ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(
        TEXT.splitlines(), VOCAB_SIZE, special_tokens=["<|endoftext|>"], show_progress=False
    )
    return tokenizer


@cache
def _sentencepiece() -> bytes:
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.splitlines()),
        model_writer=out,
        vocab_size=VOCAB_SIZE,
        byte_fallback=True,
        model_type="bpe",
        minloglevel=2,
    )
    return out.getvalue()


def greedy_text(path: Path, prompt: str, tokens: int = 24, threads: int = 1) -> str:
    """llama.cpp's greedy continuation of a prompt."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = 512
    params.cpuparams.n_threads = threads
    params.warmup = False
    server = xllamacpp.Server(params)
    answer = server.handle_completions({"prompt": prompt, "max_tokens": tokens, "temperature": 0.0})
    answer = json.loads(answer) if isinstance(answer, str | bytes) else answer
    return answer["choices"][0]["text"]
