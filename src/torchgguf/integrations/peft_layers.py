"""Adapters of PEFT on packed layers: LoRA, rsLoRA, DoRA and others of PEFT's family, which train in float32.

A layer multiplies its blocks, and the adapter is added. What needs plain weights (merging, the norms of DoRA,
the singular vectors of PiSSA) gets them unpacked to float32, and only while it runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners import lora
from peft.tuners.lora import layer as lora_layer, variants
from peft.tuners.lora.layer import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import Tensor, nn

from torchgguf.nn import Conv1D, PackedLayer, QuantizedConv1D, QuantizedEmbedding, QuantizedLinear
from torchgguf.nn.grouped_rows import QuantizedGroupedRowsLinear
from torchgguf.nn.repacking import repacked

#: The layers here that are adapted as linear ones, beside PEFT's own.
ADAPTED_AS_LINEAR = (Conv1D, QuantizedLinear, QuantizedGroupedRowsLinear)
# Ways to initialize adapters that do not read the weights.
_BLIND = ("gaussian", "eva", "orthogonal")


def adapt(target: nn.Module, adapter_name: str, config: Any, **options: Any) -> nn.Module | None:
    """Return an adapter around a layer, or None to leave it to PEFT.

    Args:
        target: the layer, or an adapter around it.
        adapter_name: of the new adapter.
        config: a `LoraConfig`.
        options: further arguments of PEFT's layers.
    """
    layer = target.get_base_layer() if isinstance(target, BaseTunerLayer) else target
    if (name := options.pop("parameter_name", None)) is not None:
        return ParamWrapper(target, adapter_name, parameter_name=name, config=config, **options)
    if isinstance(layer, QuantizedEmbedding):
        return PackedEmbedding(target, adapter_name, config=config, **options)
    if not isinstance(layer, ADAPTED_AS_LINEAR):
        return None
    # The weight of GPT-2's projections is the transpose of a linear layer's.
    config.fan_in_fan_out = isinstance(layer, Conv1D | QuantizedConv1D)
    return PackedLinear(target, adapter_name, config=config, **options)


class _OnPacked(LoraLayer):
    """An adapter whose layer may be packed.

    Merging unpacks the layer, adds the adapters in float32, and packs it again in its type. Unmerging
    restores the blocks.
    """

    _before: dict[str, Tensor]

    def _holder(self) -> Any:
        """Return the adapter that contains the layer, inside others around the same layer."""
        holder: Any = self
        while hasattr(holder.base_layer, "base_layer"):
            holder = holder.base_layer
        return holder

    @contextmanager
    def unpacked(self, dtype: torch.dtype = torch.float32) -> Iterator[nn.Module | None]:
        """Hold the plain layer, without gradients, in the block; yield it, or None if the layer is plain."""
        holder = self._holder()
        packed = holder.base_layer
        if not isinstance(packed, PackedLayer):
            yield None
            return
        holder.base_layer = plain = packed.dequantize(dtype).requires_grad_(False)
        try:
            yield plain
        finally:
            holder.base_layer = packed

    def _store(self, plain: nn.Module | None) -> None:
        """Pack the changed weights of a plain layer, and remember the blocks that they replace."""
        holder = self._holder()
        if plain is None:
            return
        old = holder.base_layer
        holder.base_layer = new = repacked(old, plain)
        blocks = {slot.name: slot.read().data_ptr() for slot in new.slots()}
        self._before = {
            slot.name: value for slot in old.slots() if (value := slot.read()).data_ptr() != blocks[slot.name]
        }

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add adapters to the weights; those that are merged already are added again, to the same blocks."""
        names = check_adapters_to_merge(self, adapter_names)
        if not names or not isinstance(self._holder().base_layer, PackedLayer):
            super().merge(safe_merge, adapter_names)
            return
        names = [*self.merged_adapters, *names]
        if self.merged:
            self.unmerge()
        with self.unpacked() as plain:
            super().merge(safe_merge, names)
        self._store(plain)

    def unmerge(self) -> None:
        """Restore the blocks that there were before adapters were merged."""
        layer = self._holder().base_layer
        if not self.merged or not isinstance(layer, PackedLayer):
            super().unmerge()
            return
        for slot in layer.slots():
            if (old := self._before.get(slot.name)) is None:
                continue
            if slot.quant_type is not None:
                layer.pack(slot.name, old, slot.quant_type, torch.float32)
            else:
                layer.fill(slot.name, old)
        self.merged_adapters.clear()


class _PackedDora(variants.DoraLinearVariant):
    """DoRA (Liu et al. 2024, arXiv 2402.09353), whose norms are those of the unpacked weights."""

    @staticmethod
    def init(module: Any, adapter_name: str, **options: Any) -> None:
        with module.unpacked():
            variants.DoraLinearVariant.init(module, adapter_name, **options)

    @staticmethod
    def forward(module: Any, active_adapter: str, x: Tensor, result: Tensor, **options: Any) -> Tensor:
        with module.unpacked():
            return variants.DoraLinearVariant.forward(module, active_adapter, x, result, **options)


class PackedLinear(_OnPacked, lora.Linear):
    """LoRA on a packed linear layer, on fused ones, and on both forms of GPT-2's projections."""

    def _get_in_out_features(self, module: Any) -> tuple[int, int]:
        return module.in_features, module.out_features

    @property
    def lora_variants(self) -> dict[Any, Any]:
        """The variants of LoRA by the fields that ask for them."""
        return {**super().lora_variants, ("use_dora",): _PackedDora}

    def update_layer(self, adapter_name: str, r: int, lora_alpha: int, config: Any, **options: Any) -> None:
        """Add an adapter. Some are initialized from the weights, and change those."""
        if isinstance(config.init_lora_weights, bool) or config.init_lora_weights in _BLIND:
            super().update_layer(adapter_name, r, lora_alpha, config, **options)
            return
        with self.unpacked() as plain:
            super().update_layer(adapter_name, r, lora_alpha, config, **options)
        self._store(plain)


class PackedEmbedding(_OnPacked, lora.Embedding):
    """LoRA on the packed rows of an embedding."""

    def _get_in_out_features(self, module: nn.Module) -> tuple[int, int]:
        assert isinstance(module, QuantizedEmbedding)
        return module.num_embeddings, module.embedding_dim

    def _embed(self, input: Tensor, weight: Tensor, *args: Any, **options: Any) -> Tensor:
        return nn.functional.embedding(input, weight)


class ParamWrapper(_OnPacked, lora_layer.ParamWrapper):
    """LoRA on a parameter of the plain form of a packed layer, such as the weights of all experts.

    PEFT adds it to the plain weights, so those are unpacked in each step. It looks for this name of a class.
    """

    def forward(self, x: Tensor, *args: Any, **options: Any) -> Any:
        """Run the layer with changed weights, in the dtype of the input."""
        with self.unpacked(x.dtype):
            return super().forward(x, *args, **options)
