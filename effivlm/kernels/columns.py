"""Triton kernels of `columns`: a row's log-sum-exp, and sums over columns given it. Imported on CUDA only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from effivlm.kernels.placed import placed

Tile = tuple[int, int, int, int]
# rows, columns, warps, stages: the fastest on an H100 at 28 heads of 128; of all rows of a prompt, and of a window of it
LSE_TILE = (64, 64, 4, 3)
SUMS_TILE = (128, 128, 4, 2)
FEW_LSE_TILE = (32, 128, 4, 3)
FEW_SUMS_TILE = (32, 128, 4, 3)
FEW = 32
ALIGNED: tl.constexpr = tl.constexpr(8)  # elements between the places where layers begin: loads stay wide
LOG2E: tl.constexpr = tl.constexpr(1.4426950408889634)


@triton.jit  # type: ignore[untyped-decorator]
def _keys_of(k_ptr, layers_ptr, head, k_head, HEADS: tl.constexpr, GROUP: tl.constexpr):  # type: ignore[no-untyped-def]  # as below
    """Where the keys of a query head begin; heads are counted through all layers."""
    begin = tl.multiple_of(tl.load(layers_ptr + head // HEADS), ALIGNED)
    return k_ptr + begin + (head % HEADS // GROUP).to(tl.int64) * k_head


@triton.jit(do_not_specialize=["rows_there", "length"])  # type: ignore[untyped-decorator]
def _lse_kernel(  # type: ignore[no-untyped-def]  # the compiler reads annotations, and knows only its own
    q_ptr,
    k_ptr,
    out_ptr,
    most_ptr,
    layers_ptr,
    rows_there,
    length,
    q_head,
    q_row,
    k_head,
    k_entry,
    scale,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    DIM: tl.constexpr,
    PADDED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CAUSAL: tl.constexpr,
    SPLITS: tl.constexpr,
):
    block, head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    rows, dims, cols = block * ROWS + tl.arange(0, ROWS), tl.arange(0, PADDED), tl.arange(0, COLUMNS)
    q_at = q_ptr + head.to(tl.int64) * q_head + rows[:, None] * q_row + dims[None, :]
    query = tl.load(q_at, mask=(rows[:, None] < rows_there) & (dims[None, :] < DIM), other=0.0)
    k_base = _keys_of(k_ptr, layers_ptr, head, k_head, HEADS, GROUP)
    last_seen = rows + length - rows_there if CAUSAL else rows * 0 + length - 1
    end = tl.minimum((block + 1) * ROWS + length - rows_there, length) if CAUSAL else length
    chunk = tl.cdiv(tl.cdiv(length, SPLITS), COLUMNS) * COLUMNS
    highest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    for start in range(split * chunk, tl.minimum((split + 1) * chunk, end), COLUMNS):
        keys = start + cols
        k_at = k_base + keys[None, :] * k_entry + dims[:, None]
        key = tl.load(k_at, mask=(keys[None, :] < length) & (dims[:, None] < DIM), other=0.0)
        logits = tl.dot(query, key, input_precision="ieee") * scale
        seen = (keys[None, :] <= last_seen[:, None]) & (keys[None, :] < length)
        logits = tl.where(seen, logits, float("-inf"))
        above = tl.maximum(highest, tl.max(logits, 1))
        finite = tl.where(above == float("-inf"), 0.0, above)  # a row that sees nothing of this split yet
        total = total * tl.exp2((highest - finite) * LOG2E) + tl.sum(tl.exp2((logits - finite[:, None]) * LOG2E), 1)
        highest = above
    out = (split * tl.num_programs(1) + head).to(tl.int64) * rows_there + rows
    tl.store(out_ptr + out, highest + tl.log(total), mask=rows < rows_there)
    tl.store(most_ptr + out, highest, mask=rows < rows_there)


@triton.jit  # type: ignore[untyped-decorator]
def _joined(part_ptr, rows, rows_there, stride, SPLITS: tl.constexpr):  # type: ignore[no-untyped-def]  # as above
    """Log-sum-exp of rows from those of their splits; infinite where there is no row, so that its weights are 0."""
    lse = tl.load(part_ptr + rows, mask=rows < rows_there, other=float("inf"))
    for split in tl.static_range(1, SPLITS):
        part = tl.load(part_ptr + split * stride + rows, mask=rows < rows_there, other=float("-inf"))
        above = tl.maximum(lse, part)
        finite = tl.where((above == float("-inf")) | (above == float("inf")), 0.0, above)
        lse = tl.where(above == float("inf"), above, above + tl.log(tl.exp(lse - finite) + tl.exp(part - finite)))
    return lse


@triton.jit  # type: ignore[untyped-decorator]
def _most(part_ptr, rows, rows_there, stride, SPLITS: tl.constexpr):  # type: ignore[no-untyped-def]  # as above
    """Largest logit of rows from those of their splits."""
    most = tl.load(part_ptr + rows, mask=rows < rows_there, other=float("inf"))
    for split in tl.static_range(1, SPLITS):
        most = tl.maximum(most, tl.load(part_ptr + split * stride + rows, mask=rows < rows_there, other=0.0))
    return most


@triton.jit(do_not_specialize=["rows_there", "length"])  # type: ignore[untyped-decorator]
def _sums_kernel(  # type: ignore[no-untyped-def]  # as above
    q_ptr,
    k_ptr,
    lse_ptr,
    most_ptr,
    out_ptr,
    near_ptr,
    layers_ptr,
    below,
    rows_there,
    length,
    q_head,
    q_row,
    k_head,
    k_entry,
    scale,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    DIM: tl.constexpr,
    PADDED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CAUSAL: tl.constexpr,
    SPLITS: tl.constexpr,
    NEAR: tl.constexpr,
):
    block, head = tl.program_id(0), tl.program_id(1)
    keys, dims, steps = block * COLUMNS + tl.arange(0, COLUMNS), tl.arange(0, PADDED), tl.arange(0, ROWS)
    k_at = _keys_of(k_ptr, layers_ptr, head, k_head, HEADS, GROUP) + keys[None, :] * k_entry + dims[:, None]
    key = tl.load(k_at, mask=(keys[None, :] < length) & (dims[:, None] < DIM), other=0.0)
    q_base = q_ptr + head.to(tl.int64) * q_head
    stats = head.to(tl.int64) * rows_there
    stride = tl.num_programs(1).to(tl.int64) * rows_there
    before = length - rows_there
    first = tl.maximum(block * COLUMNS - before, 0) // ROWS * ROWS if CAUSAL else 0
    total = tl.zeros([COLUMNS], tl.float32)
    near = tl.zeros([COLUMNS], tl.float32)
    for start in range(first, rows_there, ROWS):
        rows = start + steps
        q_at = q_base + rows[:, None] * q_row + dims[None, :]
        query = tl.load(q_at, mask=(rows[:, None] < rows_there) & (dims[None, :] < DIM), other=0.0)
        lse = _joined(lse_ptr + stats, rows, rows_there, stride, SPLITS)
        logits = tl.dot(query, key, input_precision="ieee")
        weights = tl.exp2(logits * (scale * LOG2E) - (lse * LOG2E)[:, None])
        if CAUSAL:
            weights = tl.where(keys[None, :] <= rows[:, None] + before, weights, 0.0)
        total += tl.sum(weights, 0)
        if NEAR:
            lowest = _most(most_ptr + stats, rows, rows_there, stride, SPLITS) + below
            counted = logits * scale >= lowest[:, None]
            if CAUSAL:
                counted = counted & (keys[None, :] <= rows[:, None] + before)
            near += tl.sum(counted.to(tl.float32), 0)
    out = head.to(tl.int64) * length + keys
    tl.store(out_ptr + out, total, mask=keys < length)
    if NEAR:
        tl.store(near_ptr + out, near, mask=keys < length)


@placed
def row_stats(queries: Tensor, keys: Tensor, layers: Tensor, causal: bool = True) -> Tensor:
    """Natural log-sum-exp, and largest logit, of the last W rows over each of S stretches of keys: [2, S, L * H_q, W].

    Args:
        queries: [L, H_q, W, D] of L layers, scaled by 1 / sqrt(D); -inf stands where a row sees nothing of a stretch.
        keys: [H_kv, N, D] of the first layer.
        layers: [L], how far behind those of the first layer each layer's keys begin, in elements, a multiple of `ALIGNED`;
            in memory they lie as the first layer's do.
    """
    rows, length, tile = queries.shape[2], keys.shape[1], _tile(queries, FEW_LSE_TILE, LSE_TILE)
    tall, wide, *_ = tile
    heads = queries.shape[0] * queries.shape[1]
    # a few rows make too few programs for a GPU: their keys are shared out
    splits = max(1, min(256 // (heads * triton.cdiv(rows, tall)), triton.cdiv(length, 2 * wide)))
    splits = 1 << splits.bit_length() - 1  # every number of splits is a kernel of its own to compile
    out = queries.new_empty(2, splits, heads, rows, dtype=torch.float32)
    grid = (triton.cdiv(rows, tall), heads, splits)
    _launch(_lse_kernel, grid, tile, causal, queries, keys, (out[0], out[1], layers), SPLITS=splits)
    return out


@placed
def sums(queries: Tensor, keys: Tensor, layers: Tensor, stats: Tensor, causal: bool = True) -> Tensor:
    """Sums over the last W rows [L, H_q, N] of softmax attention, given `row_stats` of the same, or [1, 1, L * H_q, W], their
    log-sum-exp alone."""
    return _sums(queries, keys, layers, stats, causal, None)[0]


@placed
def sums_and_near(queries: Tensor, keys: Tensor, layers: Tensor, stats: Tensor, below: float) -> tuple[Tensor, Tensor]:
    """Causal `sums`, and how many of the rows that see a key have its logit at most `below` (negative) under their largest:
    both [L, H_q, N] in float32."""
    out = _sums(queries, keys, layers, stats, True, below)
    return out[0], out[1]


def _sums(queries: Tensor, keys: Tensor, layers: Tensor, stats: Tensor, causal: bool, below: float | None) -> Tensor:
    length, tile, near = keys.shape[1], _tile(queries, FEW_SUMS_TILE, SUMS_TILE), below is not None
    count, heads, *_ = queries.shape
    out = queries.new_empty(1 + near, count, heads, length, dtype=torch.float32)
    grid = (triton.cdiv(length, tile[1]), count * heads)
    others = (stats[0], stats[-1], out[0], out[-1], layers, below or 0.0)
    _launch(_sums_kernel, grid, tile, causal, queries, keys, others, SPLITS=stats.shape[1], NEAR=near)
    return out


def _tile(queries: Tensor, few: Tile, many: Tile) -> Tile:
    """The tile for these rows; float32 takes twice the shared memory, so its tile is the smallest."""
    if queries.element_size() > 2:
        return LSE_TILE
    return few if queries.shape[2] <= FEW else many


def _launch(
    kernel: Any,
    grid: tuple[int, ...],
    tile: Tile,
    causal: bool,
    queries: Tensor,
    keys: Tensor,
    others: Sequence[Tensor | float],
    **constants: int,
) -> None:
    _, heads, rows, dim = queries.shape
    kernel[grid](
        queries,
        keys,
        *others,
        rows,
        keys.shape[1],
        queries.stride(1),
        queries.stride(2),
        keys.stride(0),
        keys.stride(1),
        dim**-0.5,
        HEADS=heads,
        GROUP=heads // keys.shape[0],
        DIM=dim,
        PADDED=max(16, triton.next_power_of_2(dim)),
        ROWS=tile[0],
        COLUMNS=tile[1],
        CAUSAL=causal,
        num_warps=tile[2],
        num_stages=tile[3],
        **constants,
    )
