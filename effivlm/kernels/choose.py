"""The Triton kernel of `_choose`: the numbers of each row's highest scores. Imported on CUDA only."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from effivlm.kernels.placed import placed

LONGEST = 1 << 15
"""Scores of a row up to which one program holds them all."""


@triton.jit(do_not_specialize=["length", "most"])  # type: ignore[untyped-decorator]
def _highest_kernel(  # type: ignore[no-untyped-def]  # the compiler reads annotations, and knows only its own
    scores_ptr,
    wanted_ptr,
    out_ptr,
    length,
    most,
    EACH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0)
    wanted = tl.load(wanted_ptr + row // EACH)
    at = tl.arange(0, BLOCK)
    there = at < length
    score = tl.load(scores_ptr + row.to(tl.int64) * length + at, mask=there, other=0.0)
    score = tl.where(score == 0.0, 0.0, score)  # both zeros are one number
    bits = score.to(tl.uint32, bitcast=True)
    # floats in an order that whole numbers have: the negative ones turned round, the others above them
    code = tl.where(bits >> 31 == 1, bits ^ 0xFFFFFFFF, bits | 0x80000000)
    code = tl.where(there, code, 0)
    lowest = tl.zeros([], tl.uint32)
    for place in range(32):
        tried = lowest | (tl.full([], 0x80000000, tl.uint32) >> place)
        enough = tl.sum((code >= tried).to(tl.int32), 0) >= wanted
        lowest = tl.where(enough, tried, lowest)
    above, equal = code > lowest, (code == lowest) & there
    missing = wanted - tl.sum(above.to(tl.int32), 0)
    taken = above | (equal & (tl.cumsum(equal.to(tl.int32), 0) <= missing))
    place = tl.cumsum(taken.to(tl.int32), 0) - 1
    # NaN has no order, so more may be taken than there is room for
    tl.store(out_ptr + row.to(tl.int64) * most + place, at.to(tl.int64), mask=taken & (place < most))


@placed
def highest(scores: Tensor, wanted: Tensor, most: int) -> Tensor:
    """Numbers [L, .., most] of the wanted[l] highest scores [L, .., N] of each row, ascending; zeros behind them.

    Args:
        scores: contiguous, float32, N at most `LONGEST`; ties go to the lower number.
        wanted: [L] int32, at most `most` and N.
    """
    *shape, length = scores.shape
    out = torch.zeros(*shape, most, dtype=torch.long, device=scores.device)
    rows = scores.numel() // length
    block = max(16, triton.next_power_of_2(length))
    _highest_kernel[(rows,)](
        scores,
        wanted,
        out,
        length,
        most,
        EACH=rows // len(scores),
        BLOCK=block,
        num_warps=max(1, min(16, block // 512)),
    )
    return out
