"""Attention by the `flash-attn` package (Dao 2023, arXiv 2307.08691): no masks, but rows of any length.

Shape letters: B batch, T new positions, S positions seen including the new ones, H query heads, K key/value
heads, D head size, N positions of all rows together, padding left out.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from torchgguf.nn.masks import AttentionMask

_DTYPES = (torch.float16, torch.bfloat16)


class _Packed(NamedTuple):
    """Rows without their padding, one after the other.

    `places` are the places of the positions in the padded batch, `starts` (B + 1,) where each row begins.
    """

    places: Tensor
    starts: Tensor
    longest: int

    @classmethod
    def of(cls, kept: Tensor) -> "_Packed":
        """Leave out what `kept`, bool `(B, length)`, does not name."""
        lengths = kept.sum(1, dtype=torch.int32)
        starts = F.pad(lengths.cumsum(0, dtype=torch.int32), (1, 0))
        return cls(kept.flatten().nonzero().flatten(), starts, int(lengths.max()))

    def take(self, heads: Tensor) -> Tensor:
        """Pack heads `(B, H, length, D)` to `(N, H, D)`."""
        return heads.transpose(1, 2).flatten(0, 1).index_select(0, self.places)


def flash_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: AttentionMask, scaling: float, dropout: float
) -> tuple[Tensor, None]:
    """Attend without ever holding all scores, which are float32 in the kernels whatever the dtype of `query`.

    Raises:
        ValueError: `value` has a dtype for which there are no kernels, or the mask a bias.
    """
    if mask.bias is not None:
        raise ValueError("flash_attention_2 with a bias on the scores (ALiBi) is unsupported: choose 'sdpa'")
    if (dtype := value.dtype) not in _DTYPES:
        name = str(dtype).removeprefix("torch.")
        raise ValueError(
            f"flash_attention_2 computes in float16 or bfloat16, not {name}: load with dtype='bfloat16'"
        )
    query, key = query.to(dtype), key.to(dtype)
    if mask.allowed is not None:
        return _attend_packed(query, key, value, mask.allowed, scaling, dropout), None

    from flash_attn import flash_attn_func  # type: ignore[import-not-found]

    heads = (x.transpose(1, 2) for x in (query, key, value))
    output = flash_attn_func(*heads, dropout_p=dropout, softmax_scale=scaling, causal=mask.causal)
    return output.transpose(1, 2), None


def _attend_packed(
    query: Tensor, key: Tensor, value: Tensor, allowed: Tensor, scaling: float, dropout: float
) -> Tensor:
    from flash_attn import flash_attn_varlen_func

    batch, heads, new, dim = query.shape
    real_queries, real_keys, window = describe_mask(allowed.expand(batch, 1, new, key.shape[2])[:, 0])
    queries, keys = _Packed.of(real_queries), _Packed.of(real_keys)
    attended: Tensor = flash_attn_varlen_func(
        queries.take(query),
        keys.take(key),
        keys.take(value),
        cu_seqlens_q=queries.starts,
        cu_seqlens_k=keys.starts,
        max_seqlen_q=queries.longest,
        max_seqlen_k=keys.longest,
        dropout_p=dropout,
        softmax_scale=scaling,
        causal=True,  # aligned at the end of each row: its last query sees its last key
        window_size=(window - 1, 0),
    )
    output = attended.new_zeros(batch * new, heads, dim).index_copy(0, queries.places, attended)
    return output.view(batch, new, heads, dim).transpose(1, 2)


def describe_mask(allowed: Tensor) -> tuple[Tensor, Tensor, int]:
    """Translate to the arguments of the kernels what masks `(B, T, S)` of this package allow.

    A real position sees itself and, of its row, so many real positions before it; padding does not see
    itself, so the last that it sees is no other than the one before it sees. (The first query passes for real
    where it sees anything: a row that has ended while others go on is given padding, and nobody reads what
    becomes of that.)

    Returns:
        Which queries `(B, T)` and keys `(B, S)` are real, and how many keys a query sees at most.
    """
    places = torch.arange(1, allowed.shape[2] + 1, device=allowed.device, dtype=torch.int32)
    last = (allowed * places).amax(2)
    real_queries = last > F.pad(last[:, :-1], (1, 0))
    real_keys = (allowed & real_queries[:, :, None]).any(1)
    return real_queries, real_keys, int(allowed.sum(2).max())
