"""Where the tests find their outside evidence: golden data, vocabularies and real models."""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"
QUANT_VECTORS = SHARED / "vectors" / "quants"
VOCABS = SHARED / "vocabs"

sys.path.insert(0, str(ROOT / "scripts"))
from fetch_models import GEMMA3, LLAMA_CPP, LLAMA_CPP_LORA, QWEN2, SMOLLM2  # noqa: E402  (a script)

__all__ = [
    "GEMMA3",
    "LLAMA_CPP",
    "LLAMA_CPP_LORA",
    "QUANT_VECTORS",
    "QWEN2",
    "ROOT",
    "SHARED",
    "SMOLLM2",
    "VOCABS",
]
