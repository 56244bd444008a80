"""Where the real models of the tests, the demo and the benchmarks lie."""

import os
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "torchgguf" / "models"
SMOLLM2 = CACHE / "SmolLM2-135M-Instruct.Q4_1.gguf"
QWEN2 = CACHE / "Qwen2.5-Coder-0.5B-Instruct.Q4_K_M.gguf"
