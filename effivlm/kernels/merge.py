"""Triton kernels of `_merge`: whom every evicted entry is most like, and the folding into it. Imported on CUDA only."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from effivlm.kernels.placed import placed

ROWS, COLUMNS = 64, 64


@triton.jit(do_not_specialize=["length", "evicted_there", "kept_there"])  # type: ignore[untyped-decorator]
def _nearest_kernel(  # type: ignore[no-untyped-def]  # the compiler reads annotations, and knows only its own
    keys_ptr,
    inverse_ptr,
    kept_ptr,
    kept_inverse_ptr,
    visual_ptr,
    gone_ptr,
    chosen_ptr,
    place_ptr,
    cosine_ptr,
    length,
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
    mine = rows < evicted_there
    start = head.to(tl.int64) * length
    gone = tl.load(gone_ptr + head.to(tl.int64) * evicted_there + rows, mask=mine, other=0)
    e_at = keys_ptr + (start + gone)[:, None] * DIM + dims[None, :]
    evicted = tl.load(e_at, mask=mine[:, None] & (dims[None, :] < DIM), other=0.0)
    if SORTS:
        own = tl.load(visual_ptr + gone, mask=mine, other=0)
    best = tl.full([ROWS, COLUMNS], float("-inf"), tl.float32)
    tile = tl.zeros([ROWS, COLUMNS], tl.int32)
    k_base = kept_ptr + head.to(tl.int64) * kept_there * DIM
    for first in range(0, kept_there, COLUMNS):
        there = first + cols < kept_there
        k_at = k_base + (first + cols)[None, :] * DIM + dims[:, None]
        kept = tl.load(k_at, mask=there[None, :] & (dims[:, None] < DIM), other=0.0)
        inverse = tl.load(kept_inverse_ptr + head * kept_there + first + cols, mask=there, other=0.0)
        similar = tl.dot(evicted, kept, input_precision="ieee") * inverse[None, :]
        allowed = there[None, :]
        if SORTS:
            at = tl.load(chosen_ptr + head.to(tl.int64) * kept_there + first + cols, mask=there, other=0)
            other = tl.load(visual_ptr + at, mask=there, other=0)
            allowed = allowed & (own[:, None] == other[None, :])
        better = allowed & (similar > best)
        best = tl.where(better, similar, best)
        tile = tl.where(better, first, tile)
    product = tl.max(best, 1)
    # of equal ones the first
    places = tl.where(best == product[:, None], tile + cols[None, :], kept_there)
    place = tl.where(product == float("-inf"), 0, tl.min(places, 1))
    out = head.to(tl.int64) * evicted_there + rows
    tl.store(place_ptr + out, place.to(tl.int64), mask=mine)
    tl.store(cosine_ptr + out, product * tl.load(inverse_ptr + start + gone, mask=mine, other=0.0), mask=mine)


@placed
def nearest(
    keys: Tensor, inverse: Tensor, visual: Tensor | None, gone: Tensor, chosen: Tensor, place: Tensor, cosine: Tensor
) -> None:
    """Write, of every evicted entry, the place of the kept one with the most similar key into `place`, and their cosine.

    Args:
        keys: [H, N, D], contiguous; `inverse` [H, N] are 1 / their norms, in float32.
        visual: [N], where only entries of one sort are partners: cosine -inf and place 0 where there is none.
        gone, chosen: numbers of the evicted [H, E] and the kept [H, K] entries, contiguous.
        place, cosine: [H, E], contiguous.
    """
    heads, length, dim = keys.shape
    count, kept = gone.shape[1], chosen.shape[1]
    if count:
        _nearest_kernel[(triton.cdiv(count, ROWS), heads)](
            keys,
            inverse,
            keys.gather(1, chosen[..., None].expand(-1, -1, dim)),
            inverse.gather(1, chosen),
            inverse if visual is None else visual.view(torch.uint8),
            gone,
            chosen,
            place,
            cosine,
            length,
            count,
            kept,
            SORTS=visual is not None,
            DIM=dim,
            PADDED=max(16, triton.next_power_of_2(dim)),
            ROWS=ROWS,
            COLUMNS=COLUMNS,
            num_warps=4,
            num_stages=3,
        )


@triton.jit(do_not_specialize=["length", "kept_there"])  # type: ignore[untyped-decorator]
def _fold_kernel(  # type: ignore[no-untyped-def]  # as above
    keys_ptr,
    values_ptr,
    chosen_ptr,
    gone_ptr,
    cosine_ptr,
    order_ptr,
    end_ptr,
    size_ptr,
    out_keys_ptr,
    out_values_ptr,
    length,
    kept_there,
    RULE: tl.constexpr,
    DIM: tl.constexpr,
    PADDED: tl.constexpr,
    WIDTH: tl.constexpr,
    WIDE: tl.constexpr,
):
    place, head = tl.program_id(0), tl.program_id(1)
    slot = head.to(tl.int64) * kept_there + place
    dims, wide = tl.arange(0, PADDED), tl.arange(0, WIDE)
    start = head.to(tl.int64) * length
    at = start + tl.load(chosen_ptr + slot)
    key = tl.load(keys_ptr + at * DIM + dims, mask=dims < DIM, other=0.0).to(tl.float32)
    value = tl.load(values_ptr + at * WIDTH + wide, mask=wide < WIDTH, other=0.0).to(tl.float32)
    size = tl.load(size_ptr + slot)
    first = tl.load(end_ptr + slot) - size
    keys, values, count = tl.zeros([PADDED], tl.float32), tl.zeros([WIDE], tl.float32), 0.0
    for number in range(size):
        entry = tl.load(order_ptr + first + number)
        cosine = tl.load(cosine_ptr + entry)
        there = cosine > float("-inf")
        of = start + tl.load(gone_ptr + entry)
        one = tl.load(keys_ptr + of * DIM + dims, mask=dims < DIM, other=0.0).to(tl.float32)
        two = tl.load(values_ptr + of * WIDTH + wide, mask=wide < WIDTH, other=0.0).to(tl.float32)
        if RULE == "pivotal":
            one = (one + key) / 2
            two = (two + value) / 2
        if RULE == "weighted":
            one = one * cosine
            two = two * cosine
        keys += tl.where(there, one, 0.0)
        values += tl.where(there, two, 0.0)
        count += tl.where(there, 1.0, 0.0)
    key = (key + keys) / (count + 1)
    value = (value + values) / (count + 1)
    tl.store(out_keys_ptr + slot * DIM + dims, key.to(out_keys_ptr.dtype.element_ty), mask=dims < DIM)
    tl.store(out_values_ptr + slot * WIDTH + wide, value.to(out_values_ptr.dtype.element_ty), mask=wide < WIDTH)


@placed
def folded(
    keys: Tensor,
    values: Tensor,
    chosen: Tensor,
    gone: Tensor,
    cosine: Tensor,
    order: Tensor,
    ends: Tensor,
    sizes: Tensor,
    rule: str,
) -> tuple[Tensor, Tensor]:
    """Keys [H, K, D] and values [H, K, W] of the entries `chosen` [H, K] of [H, N, D] and [H, N, W], with what joins folded in.

    `order` lists the evicted entries of all heads, by their place in `gone` [H, E], partner by partner; those of one end at
    `ends` [H, K], and `sizes` says how many they are. Those of cosine -inf have none and stand among the first one's.
    """
    heads, kept = chosen.shape
    dim, width = keys.shape[-1], values.shape[-1]
    out = keys.new_empty(heads, kept, dim), values.new_empty(heads, kept, width)
    _fold_kernel[(kept, heads)](
        keys,
        values,
        chosen,
        gone,
        cosine,
        order,
        ends,
        sizes,
        *out,
        keys.shape[1],
        kept,
        RULE=rule,
        DIM=dim,
        PADDED=max(16, triton.next_power_of_2(dim)),
        WIDTH=width,
        WIDE=max(16, triton.next_power_of_2(width)),
        num_warps=1,
    )
    return out
