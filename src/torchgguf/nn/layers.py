"""Linear and embedding layers, plain and packed."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Self, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchgguf import kernels
from torchgguf.nn.factors import scaled_linear, unpacked
from torchgguf.nn.slots import PackedLayer, Slot, SlottedLayer
from torchgguf.quants import QuantType, quant_type as find_quant_type

AnyQuantType: TypeAlias = QuantType | str | int


class _MatrixLayer(SlottedLayer):
    """A layer with one matrix, `weight`, that can stay packed."""

    def slots(self) -> Iterable[Slot]:
        """List the matrix, which can stay packed, and what there is beside it."""
        for slot in super().slots():
            yield replace(slot, packable=slot.name == "weight")


def _with_factor(slot: Slot) -> Slot:
    return replace(slot, factors=(1,)) if slot.name == "weight" else slot


class Linear(_MatrixLayer, nn.Linear):
    """`torch.nn.Linear` whose weights are set by the model, not by the layer.

    The layer's own initialisation would be thrown away a moment later, by a checkpoint or by the model's
    scheme, and takes longer than loading a packed file.
    """

    def reset_parameters(self) -> None:
        """Leave the parameters as allocated."""

    def slots(self) -> Iterable[Slot]:
        """List the matrix, whose products may have a factor, and the bias."""
        return map(_with_factor, super().slots())

    def pack(self, name: str, blocks: Tensor, quant_type: QuantType, dtype: torch.dtype) -> PackedLayer:
        """Return the packed layer, as in `SlottedLayer.pack`."""
        return QuantizedLinear.from_packed(blocks, quant_type, self.bias)


class Conv1D(_MatrixLayer):
    """`y = x @ weight + bias`, the weight being the transpose of a linear layer's: GPT-2's projections.

    `weight` is `(nx, nf)`, `bias` `(nf,)`, named as in transformers; both are set by the model. In GGUF files
    the weight is `(nf, nx)`.
    """

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf = nf
        self.nx = nx
        self.weight = nn.Parameter(torch.empty(nx, nf))
        self.bias = nn.Parameter(torch.empty(nf))

    @property
    def in_features(self) -> int:
        """Size of the input's last dimension, by the name of linear layers."""
        return self.nx

    @property
    def out_features(self) -> int:
        """Size of the output's last dimension, by the name of linear layers."""
        return self.nf

    def forward(self, input: Tensor) -> Tensor:
        """Map `(..., nx)` to `(..., nf)`."""
        return F.linear(input, self.weight.t(), self.bias)

    def slots(self) -> Iterable[Slot]:
        """List the weight as it is in files, transposed, and the bias."""
        for slot in super().slots():
            if slot.name == "weight":
                yield _with_factor(replace(slot, shape=slot.shape[::-1], read=self._rows))
            else:
                yield slot

    def _rows(self) -> Tensor:
        return self.weight.detach().t().contiguous()

    def fill(self, name: str, tensor: Tensor) -> None:
        """Store the weight, transposed as it is in files, or the bias."""
        super().fill(name, tensor.t().contiguous() if name == "weight" else tensor)

    def pack(self, name: str, blocks: Tensor, quant_type: QuantType, dtype: torch.dtype) -> "QuantizedConv1D":
        """Return the packed layer, as in `SlottedLayer.pack`."""
        return QuantizedConv1D.from_packed(blocks, quant_type, self.bias)

    def extra_repr(self) -> str:
        """Show the sizes, as in `nf=2304, nx=768`."""
        return f"nf={self.nf}, nx={self.nx}"


class Embedding(_MatrixLayer, nn.Embedding):
    """`torch.nn.Embedding` whose weights are set by the model, not by the layer (see `Linear`).

    Attributes:
        scale: factor on the rows returned, rounded to their dtype; a head that is tied is without it.
    """

    scale: float = 1.0

    def reset_parameters(self) -> None:
        """Leave the parameters as allocated."""

    def forward(self, input: Tensor) -> Tensor:
        """Look up indices of any shape: `(...)` to `(..., embedding_dim)`."""
        return _scaled(super().forward(input), self.scale)

    def pack(
        self, name: str, blocks: Tensor, quant_type: QuantType, dtype: torch.dtype
    ) -> "QuantizedEmbedding":
        """Return the packed layer, as in `SlottedLayer.pack`."""
        packed = QuantizedEmbedding.from_packed(blocks, quant_type, dtype)
        packed.scale = self.scale
        return packed


class _PackedMatrixLayer(PackedLayer):
    """A layer with one packed matrix, `weight`, and what there is beside it."""

    weight: nn.Parameter
    quant_type: QuantType

    def slots(self) -> Iterable[Slot]:
        """List the matrix by the number of its weights, and the rest as it is."""
        for slot in super().slots():
            if slot.name == "weight":
                shape = (self.weight.shape[0], self.quant_type.weights_per_row(self.weight.shape[1]))
                yield replace(slot, shape=shape, quant_type=self.quant_type, packable=True)
            else:
                yield slot

    def pack(self, name: str, blocks: Tensor, quant_type: QuantType, dtype: torch.dtype) -> Self:
        """Store blocks, as in `SlottedLayer.pack`, and return itself."""
        self.weight, self.quant_type = _parameter(blocks), quant_type
        return self


class QuantizedLinear(_PackedMatrixLayer):
    """`y = x @ dequantize(weight).T + bias`, the weight staying in its GGUF blocks.

    `weight` is uint8 `(out_features, bytes_per_row)` and has no gradient; the input and the bias have. If
    there is a factor `scale`, it applies to the product, before the bias, or with it if `scales_bias` is set.

    Args:
        in_features: size of the input's last dimension; a multiple of the type's block size.
        out_features: size of the output's last dimension.
        quant_type: how to read the blocks, such as `"Q4_K"`.
        bias: whether there is a bias `(out_features,)`.
        device: where to allocate.

    Raises:
        ValueError: `in_features` is not a whole number of blocks.
    """

    bias: nn.Parameter | None
    scale: nn.Parameter | None
    scales_bias = False

    def __init__(
        self,
        in_features: int,
        out_features: int,
        quant_type: AnyQuantType,
        bias: bool = False,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.quant_type = find_quant_type(quant_type)
        self.weight = _packed(out_features, in_features, self.quant_type, device)
        if bias:
            self.bias = nn.Parameter(torch.zeros(out_features, device=device))
        else:
            self.register_parameter("bias", None)
        self.register_parameter("scale", None)

    @classmethod
    def from_packed(cls, weight: Tensor, quant_type: AnyQuantType, bias: nn.Parameter | None = None) -> Self:
        """Build around uint8 `(out_features, bytes_per_row)` and a bias, neither of which is copied."""
        kind = find_quant_type(quant_type)
        layer = cls(kind.weights_per_row(weight.shape[1]), weight.shape[0], kind, device="meta")
        layer.weight, layer.bias = _parameter(weight), bias
        return layer

    def forward(self, input: Tensor) -> Tensor:
        """Map `(..., in_features)` to `(..., out_features)` in the input's dtype."""
        return scaled_linear(input, self.weight, self.quant_type, self.bias, self.scale, self.scales_bias)

    def dequantize(self, dtype: torch.dtype = torch.float32) -> nn.Module:
        """Return a plain layer with the same weights in `dtype`, trainable."""
        linear = Linear(
            self.in_features, self.out_features, bias=self.bias is not None, device="meta", dtype=dtype
        )
        linear.weight = nn.Parameter(unpacked(self.weight, self.quant_type, dtype, self.scale))
        if self.bias is not None:
            linear.bias = nn.Parameter(self.plain_bias(self.bias).to(dtype))
        return linear

    def plain_bias(self, bias: Tensor) -> Tensor:
        """Return the bias of a layer without a factor."""
        plain = bias.detach()
        return plain if self.scale is None or not self.scales_bias else plain * self.scale.detach()

    def extra_repr(self) -> str:
        """Show the sizes and the type, as in `in_features=896, out_features=128, Q5_0, bias=True`."""
        sizes = f"in_features={self.in_features}, out_features={self.out_features}"
        return f"{sizes}, {self.quant_type.name}, bias={self.bias is not None}"


class QuantizedConv1D(QuantizedLinear):
    """A packed `Conv1D`: its blocks run along the input dimension, as a linear layer's."""

    def dequantize(self, dtype: torch.dtype = torch.float32) -> nn.Module:
        """Return a plain `Conv1D` with the same weights in `dtype`, trainable."""
        with torch.device("meta"):
            plain = Conv1D(self.out_features, self.in_features)
        plain.fill("weight", unpacked(self.weight, self.quant_type, dtype, self.scale))
        assert self.bias is not None
        plain.fill("bias", self.plain_bias(self.bias).to(dtype))
        return plain


class QuantizedEmbedding(_PackedMatrixLayer):
    """Rows of a packed matrix, unpacked as they are looked up.

    `weight` is uint8 `(num_embeddings, bytes_per_row)` and has no gradient. A head tied to the embedding
    is a `QuantizedLinear` that holds the same parameter.

    Args:
        num_embeddings: number of rows.
        embedding_dim: elements a row; a multiple of the type's block size.
        quant_type: how to read the blocks, such as `"Q5_0"`.
        device: where to allocate.
        dtype: of the rows returned. `module.to(dtype)` changes it, as it would change a plain embedding's.

    Raises:
        ValueError: `embedding_dim` is not a whole number of blocks.
    """

    scale: float = 1.0  # as in `Embedding`
    _dtype: Tensor

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        quant_type: AnyQuantType,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.quant_type = find_quant_type(quant_type)
        self.weight = _packed(num_embeddings, embedding_dim, self.quant_type, device)
        # An empty buffer follows `.to(dtype)` and `.half()`, which uint8 weights do not.
        self.register_buffer("_dtype", torch.empty(0, dtype=dtype, device=device), persistent=False)

    @classmethod
    def from_packed(
        cls, weight: Tensor, quant_type: AnyQuantType, dtype: torch.dtype = torch.float32
    ) -> "QuantizedEmbedding":
        """Build around uint8 `(num_embeddings, bytes_per_row)`, which is not copied."""
        kind = find_quant_type(quant_type)
        layer = cls(weight.shape[0], kind.weights_per_row(weight.shape[1]), kind, device="meta")
        layer.weight, layer._dtype = _parameter(weight), torch.empty(0, dtype=dtype, device=weight.device)
        return layer

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the rows returned."""
        return self._dtype.dtype

    def forward(self, input: Tensor) -> Tensor:
        """Look up indices of any shape: `(...)` to `(..., embedding_dim)`."""
        return _scaled(kernels.embedding(input, self.weight, self.quant_type, self._dtype.dtype), self.scale)

    def dequantize(self, dtype: torch.dtype = torch.float32) -> nn.Embedding:
        """Return a plain layer with the same weights in `dtype`, trainable."""
        embedding = Embedding(self.num_embeddings, self.embedding_dim, device="meta", dtype=dtype)
        embedding.weight = nn.Parameter(kernels.dequantize(self.weight, self.quant_type, dtype))
        embedding.scale = self.scale
        return embedding

    def extra_repr(self) -> str:
        """Show the sizes and the type, as in `151936, 896, Q5_0`."""
        return f"{self.num_embeddings}, {self.embedding_dim}, {self.quant_type.name}"


def _scaled(rows: Tensor, scale: float) -> Tensor:
    # transformers rounds the factor to the dtype of the rows.
    return rows if scale == 1.0 else rows * torch.tensor(scale, dtype=rows.dtype, device=rows.device)


def _packed(rows: int, columns: int, type: QuantType, device: torch.device | str | None) -> nn.Parameter:
    return _parameter(torch.empty((rows, type.bytes_per_row(columns)), dtype=torch.uint8, device=device))


def _parameter(weight: Tensor) -> nn.Parameter:
    """Keep a parameter as it is: that of a tied layer must stay one and the same."""
    return weight if isinstance(weight, nn.Parameter) else nn.Parameter(weight, requires_grad=False)
