"""transformers' Trainer saves models of this package as it saves its own."""

from functools import wraps
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.trainer import Trainer

from torchgguf.models.core.model import Model


def register_saving() -> None:
    """Let transformers' Trainer save models of this package by their `save_pretrained`.

    Of models of other classes than its own it saves the bare state dict: without config.json, and with an
    error after the last step if two layers share weights. It offers no way to register a class.
    """
    save = Trainer._save

    @wraps(save)
    def save_any(self: Any, *args: Any, **options: Any) -> None:
        asked = self.model
        model = self.accelerator.unwrap_model(asked)
        model = getattr(model, "_orig_mod", model)  # of torch.compile
        if isinstance(model, Model):
            self.model = _stand_in(model)
        try:
            save(self, *args, **options)
        finally:
            self.model = asked

    Trainer._save = save_any  # type: ignore[method-assign]


def _stand_in(model: Model) -> Any:
    """Return an object of transformers' class that saves a model."""

    class StandIn(PreTrainedModel):  # type: ignore[no-untyped-call]
        def __init__(self) -> None:
            nn.Module.__init__(self)

        def save_pretrained(self, *args: Any, **options: Any) -> None:
            model.save_pretrained(*args, **options)  # type: ignore[operator]

    return StandIn()
