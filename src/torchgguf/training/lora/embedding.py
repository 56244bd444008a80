"""Adapters of embeddings. Shape letters: V num_embeddings, D embedding_dim, r rank."""

from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchgguf.nn import Embedding, QuantizedEmbedding
from torchgguf.training.lora.layer import LoraLayer, place_of, plain_copy
from torchgguf.training.lora.settings import LoraSettings

EMBEDDINGS = (nn.Embedding, QuantizedEmbedding)


class LoraEmbedding(LoraLayer):
    """An embedding and its adapters: `lora_embedding_A` are `(r, V)`, `lora_embedding_B` `(D, r)`."""

    tables = MappingProxyType({name: name for name in ("lora_embedding_A", "lora_embedding_B")})

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__(base_layer)
        self.lora_embedding_A = nn.ParameterDict()
        self.lora_embedding_B = nn.ParameterDict()

    def add(self, name: str, rank: int, scaling: float, settings: LoraSettings) -> None:
        """Create an adapter whose product is zero: A is zero, B is normal.

        Raises:
            ValueError: the settings ask for DoRA.
        """
        if settings.use_dora:
            raise ValueError("use_dora=True is unsupported for embeddings: leave them out of target_modules")
        place = place_of(self.base_layer)
        a, b = (torch.zeros(rank, self.num_embeddings), torch.randn(self.embedding_dim, rank))
        self.lora_embedding_A[name] = nn.Parameter(a.to(place))
        self.lora_embedding_B[name] = nn.Parameter(b.to(place))
        self.scaling[name] = scaling

    def forward(self, input: Tensor) -> Tensor:
        """Look up indices of any shape: `(...)` to `(..., D)`."""
        if self.is_merged:
            merged: Tensor = self.merged_layer[0](input)
            return merged
        output: Tensor = self.base_layer(input)
        for name, scaling in self.applying():
            rows = F.embedding(input, self.lora_embedding_A[name].t())
            product = F.linear(rows, self.lora_embedding_B[name]) * (scaling * self._scale())
            output = (output + product).to(output.dtype)
        return output

    def merge(self) -> nn.Module:
        """Return a plain embedding that returns what this layer does with the adapters that are active."""
        plain = plain_copy(self.base_layer)
        assert isinstance(plain, nn.Embedding)
        with torch.no_grad():
            for name, scaling in self.applying():
                plain.weight += (self.lora_embedding_B[name] @ self.lora_embedding_A[name]).t() * scaling
        return plain

    def _scale(self) -> float:
        base = self.base_layer
        return base.scale if isinstance(base, Embedding | QuantizedEmbedding) else 1.0
