"""The Triton kernel of `_merge`: the most similar kept key of every evicted one. Imported on CUDA only."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS, COLUMNS = 64, 64


@triton.jit  # type: ignore[untyped-decorator]
def _nearest_kernel(  # type: ignore[no-untyped-def]  # the compiler reads annotations, and knows only its own
    evicted_ptr,
    kept_ptr,
    inverse_ptr,
    evicted_sort_ptr,
    kept_sort_ptr,
    place_ptr,
    product_ptr,
    evicted_there,
    kept_there,
    SORTS: tl.constexpr,
    DIM: tl.constexpr,
    PADDED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    block, head = tl.program_id(0), tl.program_id(1)
    rows, dims, cols = block * ROWS + tl.arange(0, ROWS), tl.arange(0, PADDED), tl.arange(0, COLUMNS)
    e_at = evicted_ptr + head.to(tl.int64) * evicted_there * DIM + rows[:, None] * DIM + dims[None, :]
    evicted = tl.load(e_at, mask=(rows[:, None] < evicted_there) & (dims[None, :] < DIM), other=0.0)
    if SORTS:
        own = tl.load(evicted_sort_ptr + head * evicted_there + rows, mask=rows < evicted_there, other=0)
    best = tl.full([ROWS, COLUMNS], float("-inf"), tl.float32)
    tile = tl.zeros([ROWS, COLUMNS], tl.int32)
    for start in range(0, kept_there, COLUMNS):
        there = start + cols < kept_there
        k_at = kept_ptr + head.to(tl.int64) * kept_there * DIM + (start + cols)[None, :] * DIM + dims[:, None]
        kept = tl.load(k_at, mask=there[None, :] & (dims[:, None] < DIM), other=0.0)
        inverse = tl.load(inverse_ptr + head * kept_there + start + cols, mask=there, other=0.0)
        similar = tl.dot(evicted, kept, input_precision="ieee") * inverse[None, :]
        allowed = there[None, :]
        if SORTS:
            other = tl.load(kept_sort_ptr + head * kept_there + start + cols, mask=there, other=0)
            allowed = allowed & (own[:, None] == other[None, :])
        better = allowed & (similar > best)
        best = tl.where(better, similar, best)
        tile = tl.where(better, start, tile)
    product = tl.max(best, 1)
    # of equal ones the first
    places = tl.where(best == product[:, None], tile + cols[None, :], kept_there)
    place = tl.where(product == float("-inf"), 0, tl.min(places, 1))
    out = head.to(tl.int64) * evicted_there + rows
    tl.store(place_ptr + out, place.to(tl.int64), mask=rows < evicted_there)
    tl.store(product_ptr + out, product, mask=rows < evicted_there)


def nearest(
    evicted: Tensor, kept: Tensor, inverse: Tensor, sorts: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor]:
    """Place [H, E] of the kept key [H, K, D] with the largest product with an evicted one [H, E, D], and that product.

    Products are multiplied by `inverse` [H, K], one number for each kept key, in float32. With `sorts` ([H, E] and [H, K]) only
    pairs of one sort count: the product is -inf and the place 0 where there is none.
    """
    heads, count, dim = evicted.shape
    places = torch.empty(heads, count, dtype=torch.long, device=evicted.device)
    found = torch.empty(heads, count, dtype=torch.float32, device=evicted.device)
    own, theirs = (inverse, inverse) if sorts is None else (sort.contiguous().view(torch.uint8) for sort in sorts)
    _nearest_kernel[(triton.cdiv(count, ROWS), heads)](
        evicted.contiguous(),
        kept.contiguous(),
        inverse.contiguous(),
        own,
        theirs,
        places,
        found,
        count,
        kept.shape[1],
        SORTS=sorts is not None,
        DIM=dim,
        PADDED=max(16, triton.next_power_of_2(dim)),
        ROWS=ROWS,
        COLUMNS=COLUMNS,
        num_warps=4,
        num_stages=3,
    )
    return places, found
