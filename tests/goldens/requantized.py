"""Make tests/data/requantized.json: of what llama-quantize makes of SmolLM2, metadata and a digest.

Usage: python -m tests.goldens.requantized PATH_TO_LLAMA_QUANTIZE
"""

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import gguf

from tests.support import ROOT, SMOLLM2

GOLDENS = ROOT / "tests" / "data" / "requantized.json"
# Of types that we pack to the same bytes.
RUNS = {"Q4_0": [], "Q5_1": ["--pure"]}


def contents(path: Path) -> dict[str, Any]:
    """Return metadata with their types, but for the tokenizer, and a digest of all there is to tensors."""
    reader = gguf.GGUFReader(path)
    digest = hashlib.sha256()
    for tensor in sorted(reader.tensors, key=lambda tensor: tensor.name):
        digest.update(f"{tensor.name} {tensor.tensor_type.name} {tensor.shape.tolist()}".encode())
        digest.update(tensor.data.tobytes())
    metadata = {
        key: [[kind.name for kind in field.types], field.contents()]
        for key, field in reader.fields.items()
        if not key.startswith(("GGUF.", "tokenizer."))
    }
    return {"metadata": dict(sorted(metadata.items())), "tensors": digest.hexdigest()}


def main(llama_quantize: str) -> None:
    """Make all of it anew."""
    goldens = {}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.gguf"
        for name, options in RUNS.items():
            subprocess.run(
                [llama_quantize, "--allow-requantize", *options, SMOLLM2, out, name, "1"], check=True
            )
            goldens[name] = contents(out)
    GOLDENS.write_text(json.dumps(goldens) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
