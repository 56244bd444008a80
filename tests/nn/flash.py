"""A stand-in for the package flash-attn, which needs a GPU: its documented functions, by their definition.

Heads are `(row, position, head, size)`, or `(position, head, size)` with rows one after the other. With
`causal`, the last query of a row sees its last key, and each query before it one key less; `window_size`
says how many keys before and behind that one it sees, -1 for all.
"""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import torch


def _attend(query, key, value, scale, causal, window):
    new, total, heads = query.shape[0], key.shape[0], query.shape[1]
    key, value = (x.repeat_interleave(heads // x.shape[1], dim=1) for x in (key, value))
    scores = torch.einsum("qhd,khd->hqk", query.float(), key.float()) * scale
    place, seen = torch.arange(total - new, total)[:, None], torch.arange(total)
    before, behind = window
    hidden = torch.zeros(new, total, dtype=torch.bool)
    hidden |= (seen > place) if causal else (seen > place + behind) & (behind >= 0)
    hidden |= (seen < place - before) & (before >= 0)
    weights = scores.masked_fill(hidden, -torch.inf).softmax(-1).to(value.dtype)
    return torch.einsum("hqk,khd->qhd", weights, value)


def _check(*heads):
    assert len({x.dtype for x in heads}) == 1
    if heads[0].dtype not in (torch.float16, torch.bfloat16):
        raise RuntimeError("FlashAttention only support fp16 and bf16 data type")


def flash_attn_func(
    q, k, v, dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1)
) -> torch.Tensor:
    _check(q, k, v)
    assert dropout_p == 0
    rows = zip(q, k, v, strict=True)
    return torch.stack([_attend(*row, softmax_scale, causal, window_size) for row in rows])


def flash_attn_varlen_func(
    q,
    k,
    v,
    cu_seqlens_q,
    cu_seqlens_k,
    max_seqlen_q,
    max_seqlen_k,
    dropout_p=0.0,
    softmax_scale=None,
    causal=False,
    window_size=(-1, -1),
) -> torch.Tensor:
    _check(q, k, v)
    assert dropout_p == 0
    assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
    lengths_q, lengths_k = cu_seqlens_q.diff().tolist(), cu_seqlens_k.diff().tolist()
    assert (sum(lengths_q), sum(lengths_k)) == (len(q), len(k))
    assert (max(lengths_q), max(lengths_k)) == (max_seqlen_q, max_seqlen_k)
    rows = zip(q.split(lengths_q), k.split(lengths_k), v.split(lengths_k), strict=True)
    return torch.cat([_attend(*row, softmax_scale, causal, window_size) for row in rows])


def install(monkeypatch) -> None:
    """Let it be imported as flash-attn is."""
    module = ModuleType("flash_attn")
    module.__spec__ = ModuleSpec("flash_attn", None)
    module.flash_attn_func = flash_attn_func
    module.flash_attn_varlen_func = flash_attn_varlen_func
    monkeypatch.setitem(sys.modules, "flash_attn", module)
