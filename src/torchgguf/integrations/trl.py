"""TRL's trainers multiply by the weights of the head themselves: they get those of a packed head unpacked."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from torch import nn
from trl.trainer import utils

from torchgguf.nn import PackedLayer


def register_heads() -> None:
    """Let TRL's fused heads work on packed ones, which stay packed."""
    add = utils.add_fused_lm_head

    @wraps(add)
    def add_to_any(model: Any, *args: Any, **options: Any) -> None:
        add(model, *args, **options)
        fused = model.forward

        @wraps(fused)
        def forward(*args: Any, **options: Any) -> Any:
            if not options.get("fused_lm_head") or not isinstance(model.get_output_embeddings(), PackedLayer):
                return fused(*args, **options)
            with _plain_head(model):
                return fused(*args, **options)

        model.forward = forward

    for name, module in [*sys.modules.items()]:  # TRL's modules import the function from each other
        if name.startswith("trl.") and getattr(module, add.__name__, None) is add:
            setattr(module, add.__name__, add_to_any)


@contextmanager
def _plain_head(model: Any) -> Iterator[None]:
    """Let a model show its head unpacked, without gradients, to those who ask for it."""
    plain: nn.Module = model.get_output_embeddings().dequantize(model.dtype).requires_grad_(False)
    model.get_output_embeddings = lambda: plain
    try:
        yield
    finally:
        del model.get_output_embeddings
