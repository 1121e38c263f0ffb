"""Scores of cache entries made from attention. Everything in float32."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d, max_pool1d

from effivlm.columns import BLOCK, row_attention


def nonzero_share(queries: Tensor, keys: Tensor, threshold: float) -> Tensor:
    """Share of the attention entries of the last W rows that reach `threshold` times their row's largest: [H_q].

    Only entries that the causal order lets a row see are counted.
    """
    rows, length = queries.shape[1], keys.shape[1]
    found = torch.zeros(len(queries), device=keys.device)
    for start in range(0, rows, BLOCK):
        end = min(start + BLOCK, rows)
        visible = length - rows + end
        attention = row_attention(queries[:, start:end], keys[:, :visible])
        allowed = torch.ones(attention.shape[1:], dtype=torch.bool, device=keys.device).tril(visible - (end - start))
        dense = (attention >= threshold * attention.amax(-1, keepdim=True)) & allowed
        found += dense.sum((1, 2))
    return found / sum(range(length - rows + 1, length + 1))


def per_kv_head(scores: Tensor, kv_heads: int) -> Tensor:
    """Mean of query-head scores [H_q, ...] over the query heads that share a KV head: [H_kv, ...]."""
    means: Tensor = scores.unflatten(0, (kv_heads, -1)).mean(1)
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
