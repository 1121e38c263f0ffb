"""Scores of cache entries made from attention. Everything in float32."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import avg_pool1d, max_pool1d


def per_kv_head(scores: Tensor, kv_heads: int) -> Tensor:
    """Mean of query-head scores [.., H_q, N] over the query heads that share a KV head: [.., H_kv, N]."""
    means: Tensor = scores.unflatten(-2, (kv_heads, -1)).mean(-2)
    return means


def pooled(scores: Tensor, kernel: int, kind: str) -> Tensor:
    """Smooth scores [..., N] along positions with an odd window; "avg" counts the zero padding at borders, "max" does not."""
    if kernel == 1:
        return scores
    if kind not in ("avg", "max"):
        raise ValueError(f"pool {kind!r} is neither 'avg' nor 'max'")
    pool = avg_pool1d if kind == "avg" else max_pool1d
    flat = scores.reshape(1, -1, scores.shape[-1])
    return pool(flat, kernel_size=kernel, stride=1, padding=kernel // 2).view_as(scores)
