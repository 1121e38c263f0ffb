"""Attention of a few query rows, or what every key gets from them or from all, at any length, without a square matrix.

Everything in float32. On CUDA, Triton kernels do the sums; elsewhere, and where Triton is not installed, blocks of rows.
"""

from __future__ import annotations

import math
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

ELEMENTS = 1 << 24
"""Attention weights that `received_by_all` holds at once; 64 MiB in float32."""
WIDEST = 256
"""Width of a head up to which a kernel holds its tile."""
BLOCK = 64  # rows at a time: what they make stays in the cache of a processor core


def products(left: Tensor, right: Tensor) -> Tensor:
    """Batched left [B, M, D] times right [B, N, D] turned: [B, M, N] in float32.

    On CUDA factors of half precision are multiplied as they are and summed in float32, which loses nothing.
    """
    turned, exact = right.transpose(1, 2), left.is_cuda and left.dtype in (torch.float16, torch.bfloat16)
    found: Tensor = torch.bmm(left, turned, out_dtype=torch.float32) if exact else left.float() @ turned.float()
    return found


def row_logits(queries: Tensor, keys: Tensor) -> Tensor:
    """What `row_attention` is the softmax of: -inf where the causal order lets a row see nothing."""
    heads, rows, dim = queries.shape
    kv_heads, length, _ = keys.shape
    grouped = queries.reshape(kv_heads, heads // kv_heads * rows, dim)
    logits: Tensor = products(grouped, keys).reshape(heads, rows, length) / dim**0.5
    if rows > 1:  # the last row alone sees everything
        later = torch.ones(rows, length, dtype=torch.bool, device=keys.device).triu(length - rows + 1)
        logits = logits.masked_fill(later, float("-inf"))
    return logits


def row_attention(queries: Tensor, keys: Tensor) -> Tensor:
    """Causal softmax attention of the last W rows of a prompt.

    Args:
        queries: [H_q, W, D], rows N-W .. N-1, after rotary embedding.
        keys: [H_kv, N, D]; a KV head serves H_q / H_kv query heads.

    Returns:
        [H_q, W, N] in float32; every row sums to 1.
    """
    return row_logits(queries, keys).softmax(-1)


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


def received(queries: Tensor, keys: Tensor, lse: Tensor | None = None) -> Tensor:
    """Causal softmax attention summed over the last W rows of a prompt, in float32.

    The first of two kernels is left out where the attention itself gave its log-sum-exp.

    Args:
        queries: [H_q, W, D], rows N-W .. N-1, after rotary embedding.
        keys: [H_kv, N, D].
        lse: [H_q, W] float32, natural logarithm of every row's sum of exponentials, scaled by 1 / sqrt(D).

    Returns:
        [H_q, N]; every head's sum is W.
    """
    if not queries.is_cuda or not has_triton():
        return column_sums(queries, keys)
    from effivlm import _columns_triton as kernels

    queries, keys = queries.contiguous(), keys.contiguous()
    stats = kernels.row_stats(queries, keys) if lse is None else lse.contiguous()[None, None]
    return kernels.sums(queries, keys, stats)


def received_and_near(queries: Tensor, keys: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """`received` of the last W rows [H_q, N], and the share [H_q] of their attention entries that reach `threshold` times their
    row's largest.

    Only entries that the causal order lets a row see are counted. Told from logits: a softmax keeps their differences.
    """
    rows, length = queries.shape[1], keys.shape[1]
    below, visible = math.log(threshold) if threshold else -math.inf, sum(range(length - rows + 1, length + 1))
    if queries.is_cuda and has_triton():
        from effivlm import _columns_triton as kernels

        queries, keys = queries.contiguous(), keys.contiguous()
        sums, near = kernels.sums_and_near(queries, keys, kernels.row_stats(queries, keys), below)
        return sums, near.sum(1) / visible
    count = torch.zeros(len(queries), device=keys.device)
    for start in range(0, rows, BLOCK):
        end = min(start + BLOCK, rows)
        logits = row_logits(queries[:, start:end], keys[:, : length - rows + end])
        lowest = (logits.amax(-1, keepdim=True) + below).clamp(min=torch.finfo(torch.float32).min)  # -inf is not seen
        count += (logits >= lowest).sum((1, 2), dtype=torch.int32)
    return received(queries, keys), count / visible


def received_by_all(queries: Tensor, keys: Tensor) -> Tensor:
    """Softmax attention that every key gets, mean over heads and rows [P] in float32; every row sees every key.

    Args:
        queries: [H, R, D].
        keys: [H, P, D].
    """
    heads, rows, dim = queries.shape
    if queries.is_cuda and dim <= WIDEST and has_triton():
        from effivlm import _columns_triton as kernels

        queries, keys = queries.contiguous(), keys.contiguous()
        total = kernels.sums(queries, keys, kernels.row_stats(queries, keys, False), False).sum(0)
        return total / (heads * rows)
    total = torch.zeros(keys.shape[1], device=keys.device)
    for block in queries.split(max(1, ELEMENTS // (heads * keys.shape[1])), dim=1):
        total += (products(block, keys) / dim**0.5).softmax(-1).sum((0, 1))
    return total / (heads * rows)


@cache
def has_triton() -> bool:
    """Whether Triton is installed."""
    return find_spec("triton") is not None
