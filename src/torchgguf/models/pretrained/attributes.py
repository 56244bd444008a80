"""Attributes and methods of transformers' models that scripts and tools use, beside those of `Model`."""

from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from torchgguf.generation import GenerationMixin
from torchgguf.models.core.config import Config
from torchgguf.models.core.model import Model
from torchgguf.nn import check_attention


class TransformersAttributes(Model):
    """What scripts, Trainer, PEFT and TRL ask of a model of transformers.

    Attributes:
        config_class: class of the config.
        main_input_name: the argument of `forward` that inputs are passed as.
        input_modalities: what the model reads.
        output_modalities: what the model returns.
        supports_gradient_checkpointing: whether `gradient_checkpointing_enable` works.
        model_tags: tags of a model card, or None.
    """

    config_class: ClassVar[type[Config]]
    main_input_name: ClassVar[str] = "input_ids"
    input_modalities: ClassVar[str] = "text"
    output_modalities: ClassVar[tuple[str, ...]] = ("text",)
    supports_gradient_checkpointing: ClassVar[bool] = True
    model_tags: list[str] | None = None
    _input_hook: RemovableHandle | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        """Set the class of the config."""
        super().__init_subclass__(**options)
        if hasattr(cls, "architecture"):
            cls.config_class = cls.architecture.config_class

    @classmethod
    def can_generate(cls) -> bool:
        """Return whether the model has `generate`."""
        return issubclass(cls, GenerationMixin)

    @cached_property
    def warnings_issued(self) -> dict[str, bool]:
        """A dict in which trainers record the warnings that they have shown."""
        return {}

    @property
    def vocab_size(self) -> int:
        """The number of rows of the vocabulary."""
        size: int = self.config.vocab_size
        return size

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """Inputs for a trial run."""
        return {"input_ids": torch.tensor([[7, 6, 0, 0, 1], [1, 2, 3, 0, 0], [0, 0, 0, 4, 5]])}

    @property
    def all_tied_weights_keys(self) -> dict[str, str]:
        """The name of the head's weights and of the embedding's, if the two are one parameter."""
        if (head := self.tied_head) is None:
            return {}
        paths = {module: path for path, module in self.named_modules()}
        return {f"{paths[head]}.weight": f"{paths[self.get_input_embeddings()]}.weight"}

    def get_decoder(self) -> Model:
        """Return the model without its head."""
        return self.base_model

    def set_decoder(self, decoder: nn.Module) -> None:
        """Replace the model without its head.

        Raises:
            ValueError: the model has no head.
        """
        if self.base_model is self:
            raise ValueError(f"{type(self).__name__} has no head, so it contains no other model")
        setattr(self, self.base_model_prefix, decoder)

    def add_model_tags(self, tags: list[str] | str) -> None:
        """Add to `model_tags`, without repetition."""
        old = self.model_tags or []
        self.model_tags = list(dict.fromkeys((*old, *([tags] if isinstance(tags, str) else tags))))

    def enable_input_require_grads(self) -> None:
        """Let embedded tokens require gradients, so that adapters train while other weights are frozen."""
        self.disable_input_require_grads()

        def require(module: nn.Module, inputs: Any, output: Tensor) -> None:
            output.requires_grad_(True)

        self._input_hook = self.get_input_embeddings().register_forward_hook(require)

    def disable_input_require_grads(self) -> None:
        """Undo `enable_input_require_grads`."""
        if self._input_hook is not None:
            self._input_hook.remove()
            self._input_hook = None

    def set_attn_implementation(self, attn_implementation: str) -> None:
        """Choose another attention implementation.

        Args:
            attn_implementation: a name in `torchgguf.nn.ATTENTION_FUNCTIONS`.

        Raises:
            ValueError: there is no such implementation.
            ImportError: it needs a package that is not installed.
        """
        check_attention(attn_implementation)
        self.config.attn_implementation = attn_implementation
        for part in self.modules():
            if isinstance(part, TransformersAttributes):
                vars(part)["attn_implementation"] = attn_implementation
