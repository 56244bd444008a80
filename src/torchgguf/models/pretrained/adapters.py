"""PEFT adapts GPT-2's projections as it adapts those of transformers' GPT-2."""

import sys
from functools import wraps
from typing import Any

from torch import nn

from torchgguf.nn import Conv1D

_LORA = "peft.tuners.lora.model"


def teach_peft() -> None:
    """Let PEFT, if it is imported, adapt `Conv1D` layers with LoRA.

    PEFT knows classes, and offers to register more only in one config after the other.
    """
    lora = getattr(sys.modules.get(_LORA), "LoraModel", None)
    create = getattr(lora, "_create_new_module", None)
    if create is None or hasattr(create, "of_torchgguf"):
        return

    @wraps(create)
    def create_any(lora_config: Any, adapter_name: str, target: nn.Module, **options: Any) -> Any:
        base = getattr(target, "base_layer", target)
        if not isinstance(base, Conv1D) or lora_config._custom_modules:
            return create(lora_config, adapter_name, target, **options)
        from peft.tuners.lora import Linear

        lora_config.fan_in_fan_out = True  # the weight is the transpose of a linear layer's
        return Linear(target, adapter_name, config=lora_config, **options)

    create_any.of_torchgguf = True  # type: ignore[attr-defined]
    lora._create_new_module = staticmethod(create_any)  # type: ignore[union-attr]
