"""Scores of cache entries made from attention. Everything in float32."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d, max_pool1d

from effivlm.columns import BLOCK, row_logits


def nonzero_share(queries: Tensor, keys: Tensor, threshold: float) -> Tensor:
    """Share of the attention entries of the last W rows that reach `threshold` times their row's largest: [H_q].

    Only entries that the causal order lets a row see are counted. Told from logits: a softmax keeps their differences.
    """
    rows, length = queries.shape[1], keys.shape[1]
    found = torch.zeros(len(queries), device=keys.device)
    below = math.log(threshold) if threshold else -math.inf
    for start in range(0, rows, BLOCK):
        end = min(start + BLOCK, rows)
        logits = row_logits(queries[:, start:end], keys[:, : length - rows + end])
        lowest = (logits.amax(-1, keepdim=True) + below).clamp(min=torch.finfo(torch.float32).min)  # -inf is not seen
        found += (logits >= lowest).sum((1, 2), dtype=torch.int32)
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
