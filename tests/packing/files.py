"""A file that tests/goldens/recipes.py and the tests here make alike, to the last bit, on any machine."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from torchgguf.container import TensorSource, write_gguf
from torchgguf.packing import ImportanceMatrix
from torchgguf.packing.column_statistics import Activations

# Recipes that ggml's own arithmetic leaves no choice in. With rows as short as these a head is Q8_0, too.
EXACT = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "F16", "BF16", "F32")
METADATA: dict[str, Any] = {
    "general.architecture": "llama",
    "general.name": "Tiny",
    "llama.block_count": 2,
    "llama.context_length": 128,
    "llama.embedding_length": 64,
    "llama.feed_forward_length": 96,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "general.file_type": 1,
    "general.quantization_version": 1,
}
_LAYER = {
    "attn_norm": (64,),
    "attn_q": (64, 64),
    "attn_k": (32, 64),
    "attn_v": (32, 64),
    "attn_output": (64, 64),
    "ffn_gate": (96, 64),
    "ffn_up": (96, 64),
    "ffn_down": (64, 96),
}
SHAPES = {
    "token_embd.weight": (48, 64),
    "output_norm.weight": (64,),
    "output.weight": (48, 64),
    **{f"blk.{i}.{name}.weight": shape for i in range(2) for name, shape in _LAYER.items()},
}


def weights() -> dict[str, torch.Tensor]:
    """Weights of any scale in F32, F16 and BF16, vectors in F32."""
    rng = np.random.default_rng(0)
    result = {}
    for i, (name, shape) in enumerate(SHAPES.items()):
        # Integers come out the same with every version of NumPy.
        numbers = rng.integers(-4096, 4097, shape) * 2.0 ** rng.integers(-14, -9, (*shape[:-1], 1))
        dtype = (torch.float32, torch.float16, torch.bfloat16)[i % 3] if len(shape) > 1 else torch.float32
        result[name] = torch.from_numpy(numbers).to(dtype)
    return result


def sources() -> dict[str, TensorSource]:
    """The same as tensors of a file."""
    return {name: TensorSource.of(tensor) for name, tensor in weights().items()}


def write(path: Path) -> Path:
    """Write the file."""
    write_gguf(path, METADATA, sources())
    return path


def digest(tensor: torch.Tensor) -> str:
    """SHA-256 of a tensor's bytes."""
    return hashlib.sha256(tensor.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()


def imatrix() -> ImportanceMatrix:
    """An importance matrix that knows all matrices of layers, and all columns to matter alike."""
    one = torch.ones(1, dtype=torch.int64)
    known = {
        name: Activations(torch.ones(1, shape[-1]), one)
        for name, shape in SHAPES.items()
        if name.startswith("blk.") and len(shape) > 1
    }
    return ImportanceMatrix(known, ["corpus.txt", "more.txt"], 3, 512)
