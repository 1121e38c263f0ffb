"""Triton kernels of `packed`: one query row against caches of any lengths. Imported on CUDA only."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from effivlm.kernels.placed import placed

ENTRIES, WARPS, STAGES = 64, 4, 3  # that a program takes at a time, and how it works on them
MOST_SPLITS = 64
LOG2E: tl.constexpr = tl.constexpr(1.4426950408889634)


@triton.jit  # type: ignore[untyped-decorator]
def _attend_kernel(  # type: ignore[no-untyped-def]  # the compiler reads annotations, and knows only its own
    q_ptr,
    new_k_ptr,
    new_v_ptr,
    k_ptr,
    v_ptr,
    offset_ptr,
    length_ptr,
    filled_ptr,
    part_ptr,
    stats_ptr,
    out_ptr,
    scale,
    v_row,
    v_head,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    QUERIES: tl.constexpr,
    DIM: tl.constexpr,
    PADDED: tl.constexpr,
    WIDTH: tl.constexpr,
    WIDE: tl.constexpr,
    SPLITS: tl.constexpr,
    ENTRIES: tl.constexpr,
):
    pair, split = tl.program_id(0), tl.program_id(1)
    used = tl.load(length_ptr + pair) + tl.load(filled_ptr)
    base = tl.load(offset_ptr + pair)
    chunk = tl.cdiv(tl.cdiv(used, SPLITS), ENTRIES) * ENTRIES
    first, last = split * chunk, tl.minimum((split + 1) * chunk, used)
    rows, dims, wide = tl.arange(0, QUERIES), tl.arange(0, PADDED), tl.arange(0, WIDE)
    q_at = q_ptr + (pair * GROUP + rows[:, None]) * DIM + dims[None, :]
    query = tl.load(q_at, mask=(rows[:, None] < GROUP) & (dims[None, :] < DIM), other=0.0)
    # the new entry belongs to the first split, which also writes it down; nobody reads it from there at this step
    mine = split == 0
    new_key = tl.load(new_k_ptr + pair * DIM + dims, mask=dims < DIM, other=0.0)
    new_v_at = new_v_ptr + (pair // HEADS) * v_row + (pair % HEADS) * v_head + wide
    new_value = tl.load(new_v_at, mask=wide < WIDTH, other=0.0)
    tl.store(k_ptr + (base + used) * DIM + dims, new_key, mask=mine & (dims < DIM))
    tl.store(v_ptr + (base + used) * WIDTH + wide, new_value, mask=mine & (wide < WIDTH))
    newest = tl.sum(query.to(tl.float32) * new_key.to(tl.float32)[None, :], 1) * scale
    highest = tl.where(mine, newest, float("-inf"))
    total = tl.where(mine, 1.0, 0.0) + tl.zeros([QUERIES], tl.float32)
    found = tl.where(mine, new_value.to(tl.float32)[None, :], 0.0) + tl.zeros([QUERIES, WIDE], tl.float32)
    for start in range(first, last, ENTRIES):
        at = start + tl.arange(0, ENTRIES)
        k_at = k_ptr + (base + at)[None, :] * DIM + dims[:, None]
        key = tl.load(k_at, mask=(at[None, :] < last) & (dims[:, None] < DIM), other=0.0)
        logits = tl.dot(query, key, input_precision="ieee") * scale
        logits = tl.where(at[None, :] < last, logits, float("-inf"))
        above = tl.maximum(highest, tl.max(logits, 1))
        shrink = tl.exp2((highest - above) * LOG2E)
        weights = tl.exp2((logits - above[:, None]) * LOG2E)
        v_at = v_ptr + (base + at)[:, None] * WIDTH + wide[None, :]
        value = tl.load(v_at, mask=(at[:, None] < last) & (wide[None, :] < WIDTH), other=0.0)
        total = total * shrink + tl.sum(weights, 1)
        found = found * shrink[:, None] + tl.dot(weights.to(value.dtype), value, input_precision="ieee")
        highest = above
    inside = (rows[:, None] < GROUP) & (wide[None, :] < WIDTH)
    if SPLITS == 1:
        out_at = out_ptr + (pair * GROUP + rows[:, None]) * WIDTH + wide[None, :]
        tl.store(out_at, (found / total[:, None]).to(out_ptr.dtype.element_ty), mask=inside)
    else:
        slot = (pair * SPLITS + split) * GROUP + rows
        tl.store(part_ptr + slot[:, None] * WIDTH + wide[None, :], found, mask=inside)
        tl.store(stats_ptr + 2 * slot, highest, mask=rows < GROUP)
        tl.store(stats_ptr + 2 * slot + 1, total, mask=rows < GROUP)


@triton.jit  # type: ignore[untyped-decorator]
def _combine_kernel(  # type: ignore[no-untyped-def]  # as above
    part_ptr,
    stats_ptr,
    out_ptr,
    GROUP: tl.constexpr,
    WIDTH: tl.constexpr,
    WIDE: tl.constexpr,
    SPLITS: tl.constexpr,
    PARTS: tl.constexpr,
):
    pair, row = tl.program_id(0), tl.program_id(1)
    parts, wide = tl.arange(0, PARTS), tl.arange(0, WIDE)
    slot = (pair * SPLITS + parts) * GROUP + row
    highest = tl.load(stats_ptr + 2 * slot, mask=parts < SPLITS, other=float("-inf"))
    total = tl.load(stats_ptr + 2 * slot + 1, mask=parts < SPLITS, other=0.0)
    weights = tl.exp2((highest - tl.max(highest, 0)) * LOG2E)
    found = tl.load(
        part_ptr + slot[:, None] * WIDTH + wide[None, :],
        mask=(parts[:, None] < SPLITS) & (wide[None, :] < WIDTH),
        other=0.0,
    )
    answer = tl.sum(found * weights[:, None], 0) / tl.sum(total * weights, 0)
    tl.store(out_ptr + (pair * GROUP + row) * WIDTH + wide, answer.to(out_ptr.dtype.element_ty), mask=wide < WIDTH)


def splits_for(longest: int, entries: int, device: torch.device) -> int:
    """Into how many parts every cache is cut, so that a part of the `longest` is what each multiprocessor gets of all `entries`;
    a power of two, since every number is a kernel of its own to compile."""
    processors = torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
    wanted, most = max(1, longest * processors // max(1, entries)), triton.cdiv(longest, ENTRIES)
    return min(1 << wanted.bit_length() - 1, triton.next_power_of_2(most), MOST_SPLITS)  # type: ignore[no-any-return]


@placed
def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pool: tuple[Tensor, Tensor],
    offset: Tensor,
    length: Tensor,
    filled: Tensor,
    scaling: float,
    splits: int,
) -> Tensor:
    """As `packed.attend_reference`."""
    rows, heads, _, dim = key.shape
    group, width = query.shape[1] // heads, value.shape[-1]
    part = query.new_empty(rows * heads, splits, group, width, dtype=torch.float32) if splits > 1 else query
    stats = query.new_empty(rows * heads, splits, group, 2, dtype=torch.float32) if splits > 1 else query
    out = query.new_empty(rows, heads * group, 1, width)
    value = value if value.stride(-1) == 1 else value.contiguous()
    shape = {"GROUP": group, "WIDTH": width, "WIDE": max(16, triton.next_power_of_2(width)), "SPLITS": splits}
    tiles = {"QUERIES": max(16, triton.next_power_of_2(group)), "PADDED": max(16, triton.next_power_of_2(dim))}
    seen = (query.contiguous(), key.contiguous(), value, *pool, offset, length, filled, part, stats, out, scaling)
    _attend_kernel[(rows * heads, splits)](
        *seen,
        *value.stride()[:2],
        **shape,
        **tiles,
        HEADS=heads,
        DIM=dim,
        ENTRIES=ENTRIES,
        num_warps=WARPS,
        num_stages=STAGES,
    )
    if splits > 1:
        _combine_kernel[(rows * heads, group)](part, stats, out, **shape, PARTS=triton.next_power_of_2(splits))
    return out
