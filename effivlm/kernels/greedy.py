"""Triton kernels that pick tokens one after another: one program for all picks of a pool. Imported on CUDA only.

What a pick decides lies in registers, similarities are read from memory row by row; a loop of small kernels waits for its
launches instead.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from effivlm.kernels.placed import placed

LONGEST = 1 << 15
"""Tokens of a pool up to which one program holds what it knows of them."""
PAIRS = 1 << 13
"""Similarities that one program looks at in a step."""
UNROLLED: tl.constexpr = tl.constexpr(8)  # earlier picks whose rows are on their way at once


@triton.jit(do_not_specialize=["width", "most"])  # type: ignore[untyped-decorator]
def _farthest_kernel(  # type: ignore[no-untyped-def]  # the compiler reads annotations, and knows only its own
    alike_ptr,
    nearest_ptr,
    sizes_ptr,
    counts_ptr,
    out_ptr,
    width,
    most,
    same,
    BLOCK: tl.constexpr,
):
    pool = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    there = at < tl.load(sizes_ptr + pool)
    base = alike_ptr + pool * width * width
    nearest = tl.load(nearest_ptr + pool * width + at, mask=there, other=float("inf"))
    pick = tl.argmin(nearest, 0)
    tl.store(out_ptr + pool * most, pick.to(tl.int64))
    nearest = tl.where(there, -1.0, float("inf"))
    for number in range(1, tl.load(counts_ptr + pool)):
        row = tl.load(base + pick.to(tl.int64) * width + at, mask=there, other=0.0)
        nearest = tl.maximum(nearest, tl.minimum(row, same))
        nearest = tl.where(at == pick, 2.0, nearest)
        pick = tl.argmin(nearest, 0)
        tl.store(out_ptr + pool * most + number, pick.to(tl.int64))


@triton.jit(do_not_specialize=["width", "most", "rank"])  # type: ignore[untyped-decorator]
def _determinant_kernel(  # type: ignore[no-untyped-def]  # as above
    gram_ptr,
    left_ptr,
    relevance_ptr,
    sizes_ptr,
    counts_ptr,
    history_ptr,
    out_ptr,
    width,
    most,
    rank,
    small,
    BLOCK: tl.constexpr,
):
    pool = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    there = at < tl.load(sizes_ptr + pool)
    base, history = gram_ptr + pool * width * width, history_ptr + pool * most * width
    left = tl.load(left_ptr + pool * width + at, mask=there, other=0.0)
    relevance = tl.load(relevance_ptr + pool * width + at, mask=there, other=0.0)
    free = there
    for number in range(tl.load(counts_ptr + pool)):
        order = tl.where(left > small, left, small * relevance / (1 + small))
        pick = tl.argmax(tl.where(free, order, -1.0), 0)
        tl.store(out_ptr + pool * most + number, pick.to(tl.int64))
        held = tl.sum(tl.where(at == pick, left, 0.0), 0)
        free = free & (at != pick)
        if (number < rank) & (held > small):
            tl.debug_barrier()  # what the threads wrote of earlier picks is read by others
            rest = tl.load(base + pick.to(tl.int64) * width + at, mask=there, other=0.0)
            for first in range(0, number, UNROLLED):
                for step in tl.static_range(UNROLLED):
                    row = history + (first + step) * width
                    known = first + step < number
                    share = tl.load(row + pick, mask=known, other=0.0)
                    rest -= share * tl.load(row + at, mask=there & known, other=0.0)
            rest = rest / tl.sqrt(held)
            left -= rest * rest
            tl.store(history + number * width + at, rest, mask=there)


@triton.jit(do_not_specialize=["width", "most"])  # type: ignore[untyped-decorator]
def _varied_kernel(  # type: ignore[no-untyped-def]  # as above
    alike_ptr,
    order_ptr,
    facts_ptr,
    turns_ptr,
    scores_ptr,
    out_ptr,
    width,
    most,
    BLOCK: tl.constexpr,
    HALF: tl.constexpr,
    CHUNK: tl.constexpr,
):
    pool = tl.program_id(0).to(tl.int64)
    at, half, chunk = tl.arange(0, BLOCK), tl.arange(0, HALF), tl.arange(0, CHUNK)
    facts = facts_ptr + pool * 4
    length, first = tl.load(facts), tl.load(facts + 1)
    count, step = tl.load(facts + 2), tl.load(facts + 3)
    base, turns, scores = alike_ptr + pool * width * width, turns_ptr + pool * 2 * width, scores_ptr + pool * width
    length = length - first
    dealt = tl.load(order_ptr + pool * width + first + at, mask=at < length, other=0)
    tl.store(turns + at, dealt, mask=at < length)
    turn = 0
    while length > count:
        tl.debug_barrier()  # numbers, and below scores, are written by other threads than those that read them
        source, target = turns + turn * width, turns + (1 - turn) * width
        ones, others = (length + 1) // 2, length // 2
        one = tl.load(source + 2 * half, mask=half < ones, other=0)
        other = tl.load(source + 2 * half + 1, mask=half < others, other=0)
        highest = tl.full([HALF], float("-inf"), tl.float32)
        for start in range(0, others, CHUNK):
            place = start + chunk
            row = tl.load(source + 2 * place + 1, mask=place < others, other=0)
            seen = (place < others)[:, None] & (half < ones)[None, :]
            alike = tl.load(base + row[:, None] * width + one[None, :], mask=seen, other=float("-inf"))
            highest = tl.maximum(highest, tl.max(alike, 0))
        tl.store(scores + half, highest, mask=half < ones)
        tl.debug_barrier()
        rank = tl.zeros([HALF], tl.int32)
        for start in range(0, ones, CHUNK):
            place = start + chunk
            theirs = tl.load(scores + place, mask=place < ones, other=float("-inf"))
            level = (theirs[:, None] == highest[None, :]) & (place[:, None] < half[None, :])
            before = ((theirs[:, None] > highest[None, :]) | level) & (place < ones)[:, None]
            rank += tl.sum(before.to(tl.int32), 0)
        drop = tl.minimum(tl.minimum(step, length - count), ones)
        tl.store(target + rank - drop, one, mask=(half < ones) & (rank >= drop))
        tl.store(target + ones - drop + half, other, mask=half < others)
        turn = 1 - turn
        length -= drop
    tl.debug_barrier()
    left = tl.load(turns + turn * width + at, mask=at < count, other=0)
    tl.store(out_ptr + pool * most + first + at, left, mask=at < count)


@placed
def farthest(alike: Tensor, nearest: Tensor, sizes: Tensor, counts: Tensor, most: int, same: float) -> Tensor:
    """Numbers [T, most] of the picks of T pools, each the farthest from those before it; means nothing behind counts[t].

    Args:
        alike: similarities [T, N, N] in float32, contiguous; what is above `same` counts as that.
        nearest: [T, N], the highest similarity of a token to another one; the lowest is picked first.
        sizes, counts: [T] int32, tokens of a pool and how many are picked; N at most `LONGEST`.
    """
    pools, width = nearest.shape
    out = torch.zeros(pools, most, dtype=torch.long, device=alike.device)
    block = _block(width)
    arguments = (alike, nearest.contiguous(), sizes, counts, out, width, most, same)
    _farthest_kernel[(pools,)](*arguments, BLOCK=block, num_warps=_warps(block))
    return out


@placed
def determinant(
    gram: Tensor, relevance: Tensor, sizes: Tensor, counts: Tensor, most: int, rank: int, small: float
) -> Tensor:
    """Numbers [T, most] of the greedy MAP of T determinantal point processes, in the order they are picked; means nothing behind
    counts[t].

    Args:
        gram: the kernels [T, N, N] in float32, contiguous; of `rank` at most.
        relevance: [T, N], by which those follow of whose own entry no more than `small` is left.
        sizes, counts: as in `farthest`.
    """
    pools, width = relevance.shape
    left = gram.diagonal(dim1=1, dim2=2).contiguous()
    out = torch.zeros(pools, most, dtype=torch.long, device=gram.device)
    history = gram.new_zeros(pools, most, width)
    block = _block(width)
    arguments = (gram, left, relevance.contiguous(), sizes, counts, history, out, width, most, rank, small)
    _determinant_kernel[(pools,)](*arguments, BLOCK=block, num_warps=_warps(block))
    return out


@placed
def varied(alike: Tensor, order: Tensor, facts: Tensor, most: int) -> Tensor:
    """Of T pools the first tokens of their order, and of the others a set without likenesses: numbers [T, most].

    The others are dealt in turn to two halves; the most alike of the first half leave, the rest of it, by falling likeness, comes
    before the second half; until as many are left as asked.

    Args:
        alike: similarities [T, N, N] in float32, contiguous and without NaN.
        order: numbers [T, N] of the tokens of each pool.
        facts: [T, 4] int32: tokens of a pool, how many of the first stay as they are, how many others stay, how many leave at
            once.
    """
    pools, width = order.shape
    out, dealt = order[:, :most].contiguous(), order.to(torch.int32).contiguous()
    turns = torch.zeros(pools, 2, width, dtype=torch.int32, device=alike.device)
    scores = torch.zeros(pools, width, device=alike.device)
    block = _block(width)
    half = max(16, block // 2)
    _varied_kernel[(pools,)](
        *(alike, dealt, facts, turns, scores, out, width, most),
        BLOCK=block,
        HALF=half,
        CHUNK=max(1, min(16, PAIRS // half)),
        num_warps=_warps(block),
    )
    return out


def _block(width: int) -> int:
    return int(max(16, triton.next_power_of_2(width)))


def _warps(block: int) -> int:
    return max(1, min(32 if block > 1 << 12 else 16, block // 64))
