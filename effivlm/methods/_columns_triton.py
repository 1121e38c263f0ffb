"""Triton kernels of `_columns`: a row's log-sum-exp, and sums over columns given it. Imported on CUDA only."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 64  # rows and columns of a tile
LOG2E: tl.constexpr = tl.constexpr(1.4426950408889634)


@triton.jit  # type: ignore[untyped-decorator]
def _lse_kernel(  # type: ignore[no-untyped-def]  # the compiler reads annotations, and knows only its own
    q_ptr,
    k_ptr,
    out_ptr,
    length,
    scale,
    GROUP: tl.constexpr,
    DIM: tl.constexpr,
    PADDED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    head, block = tl.program_id(1), tl.program_id(0)
    rows, dims, cols = block * ROWS + tl.arange(0, ROWS), tl.arange(0, PADDED), tl.arange(0, COLUMNS)
    q_at = q_ptr + head.to(tl.int64) * length * DIM + rows[:, None] * DIM + dims[None, :]
    query = tl.load(q_at, mask=(rows[:, None] < length) & (dims[None, :] < DIM), other=0.0)
    k_base = k_ptr + (head // GROUP).to(tl.int64) * length * DIM
    highest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    for start in range(0, tl.minimum((block + 1) * ROWS, length), COLUMNS):
        keys = start + cols
        k_at = k_base + keys[None, :] * DIM + dims[:, None]
        key = tl.load(k_at, mask=(keys[None, :] < length) & (dims[:, None] < DIM), other=0.0)
        logits = tl.dot(query, key, input_precision="ieee") * scale
        logits = tl.where(keys[None, :] <= rows[:, None], logits, float("-inf"))
        above = tl.maximum(highest, tl.max(logits, 1))
        total = total * tl.exp2((highest - above) * LOG2E) + tl.sum(tl.exp2((logits - above[:, None]) * LOG2E), 1)
        highest = above
    tl.store(out_ptr + head.to(tl.int64) * length + rows, highest + tl.log(total), mask=rows < length)


@triton.jit  # type: ignore[untyped-decorator]
def _sums_kernel(  # type: ignore[no-untyped-def]  # as above
    q_ptr,
    k_ptr,
    lse_ptr,
    out_ptr,
    length,
    scale,
    GROUP: tl.constexpr,
    DIM: tl.constexpr,
    PADDED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    head, block = tl.program_id(1), tl.program_id(0)
    keys, dims, steps = block * COLUMNS + tl.arange(0, COLUMNS), tl.arange(0, PADDED), tl.arange(0, ROWS)
    k_at = k_ptr + (head // GROUP).to(tl.int64) * length * DIM + keys[None, :] * DIM + dims[:, None]
    key = tl.load(k_at, mask=(keys[None, :] < length) & (dims[:, None] < DIM), other=0.0)
    q_base, lse_base = q_ptr + head.to(tl.int64) * length * DIM, lse_ptr + head.to(tl.int64) * length
    total = tl.zeros([COLUMNS], tl.float32)
    for start in range(block * COLUMNS // ROWS * ROWS, length, ROWS):
        rows = start + steps
        q_at = q_base + rows[:, None] * DIM + dims[None, :]
        query = tl.load(q_at, mask=(rows[:, None] < length) & (dims[None, :] < DIM), other=0.0)
        lse = tl.load(lse_base + rows, mask=rows < length, other=float("inf"))
        logits = tl.dot(query, key, input_precision="ieee") * scale
        weights = tl.exp2((logits - lse[:, None]) * LOG2E)
        total += tl.sum(tl.where(keys[None, :] <= rows[:, None], weights, 0.0), 0)
    tl.store(out_ptr + head.to(tl.int64) * length + keys, total, mask=keys < length)


def row_lse(queries: Tensor, keys: Tensor) -> Tensor:
    """Natural log-sum-exp [H_q, N] of every causal row of queries [H_q, N, D] over keys [H_kv, N, D], scaled by 1 / sqrt(D)."""
    out = queries.new_empty(queries.shape[:2], dtype=torch.float32)
    _launch(_lse_kernel, queries, keys, out)
    return out


def sums(queries: Tensor, keys: Tensor, lse: Tensor) -> Tensor:
    """Sums over rows [H_q, N] of softmax attention, given the rows' log-sum-exp [H_q, N]."""
    out = queries.new_empty(queries.shape[:2], dtype=torch.float32)
    _launch(_sums_kernel, queries, keys, lse, out)
    return out


def _launch(kernel: Any, queries: Tensor, keys: Tensor, *others: Tensor) -> None:
    heads, length, dim = queries.shape
    kernel[(triton.cdiv(length, BLOCK), heads)](
        queries,
        keys,
        *others,
        length,
        dim**-0.5,
        GROUP=heads // keys.shape[0],
        DIM=dim,
        PADDED=max(16, triton.next_power_of_2(dim)),
        ROWS=BLOCK,
        COLUMNS=BLOCK,
        num_warps=4,
        num_stages=3,
    )
