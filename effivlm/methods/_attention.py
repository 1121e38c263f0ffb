"""Attention of a few query rows, or summed over all of them, without a square matrix. Everything in float32."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d, max_pool1d

BLOCK = 64  # rows at a time: what they make stays in the cache of a processor core


def row_attention(queries: Tensor, keys: Tensor) -> Tensor:
    """Causal softmax attention of the last W rows of a prompt.

    Args:
        queries: [H_q, W, D], rows N-W .. N-1, after rotary embedding.
        keys: [H_kv, N, D]; a KV head serves H_q / H_kv query heads.

    Returns:
        [H_q, W, N] in float32; every row sums to 1.
    """
    heads, rows, dim = queries.shape
    kv_heads, length, _ = keys.shape
    grouped = queries.float().reshape(kv_heads, heads // kv_heads * rows, dim)
    logits: Tensor = (grouped @ keys.float().transpose(1, 2) / dim**0.5).reshape(heads, rows, length)
    if rows > 1:  # the last row alone sees everything
        later = torch.ones(rows, length, dtype=torch.bool, device=keys.device).triu(length - rows + 1)
        logits = logits.masked_fill(later, float("-inf"))
    return logits.softmax(-1)


def column_sums(queries: Tensor, keys: Tensor) -> Tensor:
    """Attention that every key gets, summed over the W given rows [H_q, N] in float32, block by block of rows."""
    heads, rows, _ = queries.shape
    length = keys.shape[1]
    total: Tensor = torch.zeros(heads, length, device=keys.device)
    for start in range(0, rows, BLOCK):
        end = min(start + BLOCK, rows)
        seen = length - rows + end
        total[:, :seen] += row_attention(queries[:, start:end], keys[:, :seen]).sum(1)
    return total


def nonzero_share(queries: Tensor, keys: Tensor, threshold: float) -> Tensor:
    """Share of the attention entries of the last W rows that reach `threshold` times their row's largest: [H_q].

    Only entries that the causal order lets a row see are counted.
    """
    rows, length = queries.shape[1], keys.shape[1]
    found, seen = torch.zeros(len(queries), device=keys.device), 0
    for start in range(0, rows, BLOCK):
        end = min(start + BLOCK, rows)
        visible = length - rows + end
        attention = row_attention(queries[:, start:end], keys[:, :visible])
        allowed = torch.ones(attention.shape[1:], dtype=torch.bool, device=keys.device).tril(visible - (end - start))
        dense = (attention >= threshold * attention.amax(-1, keepdim=True)) & allowed
        found += dense.sum((1, 2))
        seen += int(allowed.sum())
    return found / seen


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
    return pool(scores[None], kernel_size=kernel, stride=1, padding=kernel // 2)[0]
