"""The Triton kernel of `_gather`: rows of many layers into one buffer. Imported on CUDA only."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
import triton
import triton.language as tl
from torch import Tensor

from effivlm.kernels.placed import placed

ROWS = 16
FACTS: tl.constexpr = tl.constexpr(6)


@triton.jit(do_not_specialize=["k_entry", "v_entry"])  # type: ignore[untyped-decorator]
def _gather_kernel(  # type: ignore[no-untyped-def]  # the compiler reads annotations, and knows only its own
    facts_ptr,
    places_ptr,
    keys_ptr,
    values_ptr,
    k_entry,
    v_entry,
    HEADS: tl.constexpr,
    DIM: tl.constexpr,
    PADDED: tl.constexpr,
    WIDTH: tl.constexpr,
    WIDE: tl.constexpr,
    ROWS: tl.constexpr,
):
    block, layer = tl.program_id(0), tl.program_id(1)
    facts = facts_ptr + layer * FACTS
    first, each = tl.load(facts), tl.load(facts + 1)
    row = block * ROWS + tl.arange(0, ROWS)
    there = row < HEADS * each
    place = tl.load(places_ptr + first + row, mask=there, other=0)
    head = row // tl.maximum(each, 1)
    dims, wide = tl.arange(0, PADDED), tl.arange(0, WIDE)
    key_at = tl.load(facts + 2).to(tl.pointer_type(keys_ptr.dtype.element_ty))
    value_at = tl.load(facts + 3).to(tl.pointer_type(values_ptr.dtype.element_ty))
    k_from = head * tl.load(facts + 4) + place * k_entry
    v_from = head * tl.load(facts + 5) + place * v_entry
    mine = there[:, None] & (dims[None, :] < DIM)
    key = tl.load(key_at + k_from[:, None] + dims[None, :], mask=mine, other=0.0)
    tl.store(keys_ptr + (first + row)[:, None] * DIM + dims[None, :], key, mask=mine)
    mine = there[:, None] & (wide[None, :] < WIDTH)
    value = tl.load(value_at + v_from[:, None] + wide[None, :], mask=mine, other=0.0)
    tl.store(values_ptr + (first + row)[:, None] * WIDTH + wide[None, :], value, mask=mine)


@placed
def gathered(
    keys: Tensor, values: Tensor, layers: Sequence[tuple[int, int, int, int]], chosen: Sequence[Tensor]
) -> list[tuple[Tensor, Tensor]]:
    """Keys and values [H, K_l, D] of the entries `chosen` [H, K_l] of every layer.

    Args:
        keys, values: [H, N, D] of the first layer; the others lie in memory as it does, with other N.
        layers: addresses of a layer's keys and values, and how far its heads lie apart in each.
    """
    heads, _, dim = keys.shape
    width = values.shape[2]
    counts = [at.shape[1] for at in chosen]
    sizes = [heads * count for count in counts]
    starts = list(accumulate(sizes, initial=0))
    facts = [(start, count, *layer) for start, count, layer in zip(starts, counts, layers, strict=False)]
    out = keys.new_empty(starts[-1], dim), values.new_empty(starts[-1], width)
    if starts[-1]:
        _gather_kernel[(triton.cdiv(max(sizes), ROWS), len(facts))](
            torch.tensor(facts).to(keys.device, non_blocking=True),
            torch.cat([at.flatten() for at in chosen]),
            *out,
            keys.stride(1),
            values.stride(1),
            HEADS=heads,
            DIM=dim,
            PADDED=triton.next_power_of_2(dim),
            WIDTH=width,
            WIDE=triton.next_power_of_2(width),
            ROWS=ROWS,
        )
    each = zip(out[0].split(sizes), out[1].split(sizes), counts, strict=True)
    return [(key.view(heads, count, dim), value.view(heads, count, width)) for key, value, count in each]
