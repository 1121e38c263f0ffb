"""The Triton kernel of `copies`: rows of many caches into their places, whatever their lengths. Imported on CUDA only."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from effivlm.kernels.placed import placed
from effivlm.kernels.stretches import Copy, stretches

ROWS = 32
FACTS: tl.constexpr = tl.constexpr(7)


@triton.jit  # type: ignore[untyped-decorator]
def _copy_kernel(  # type: ignore[no-untyped-def]  # the compiler reads annotations, and knows only its own
    facts_ptr,
    form_ptr,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    WIDE: tl.constexpr,
    ROWS: tl.constexpr,
):
    facts, block = facts_ptr + tl.program_id(0).to(tl.int64) * FACTS, tl.program_id(1)
    length, space = tl.load(facts + 2), tl.load(facts + 3)
    if block * ROWS < HEADS * length:
        source = tl.load(facts).to(tl.pointer_type(form_ptr.dtype.element_ty))
        target = tl.load(facts + 1).to(tl.pointer_type(form_ptr.dtype.element_ty))
        row = block * ROWS + tl.arange(0, ROWS)
        head, entry, wide = row // length, row % length, tl.arange(0, WIDE)
        mine = (row < HEADS * length)[:, None] & (wide[None, :] < WIDTH)
        origin = head * tl.load(facts + 4) + entry * tl.load(facts + 5)
        found = tl.load(source + origin[:, None] + wide[None, :], mask=mine, other=0.0)
        for turn in range(tl.load(facts + 6)):
            there = (turn * HEADS + head) * space + entry
            tl.store(target + there[:, None] * WIDTH + wide[None, :], found, mask=mine)


@placed
def copied(pool: Tensor, copies: Sequence[Copy]) -> None:
    """Make copies of one form, that of `pool`: entries of one type and width, as many heads, on one device."""
    heads, width = copies[0].rows[0].shape[0], pool[0].numel()
    facts: list[tuple[int, ...]] = []
    longest = 0
    turned = []  # copies of rows whose entries do not lie in one piece, until the kernel has its work
    for copy in copies:
        at, step = copy.pool.data_ptr(), heads * width * copy.pool.element_size()
        for start, end in stretches(copy.rows):
            row, space, times = copy.rows[start], copy.spaces[start], end - start
            if row.dim() > 2 and row.stride(2) != 1:
                turned.append(row := row.contiguous())
            length = row.shape[1]
            facts.append((row.data_ptr(), at, length, space, row.stride(0), row.stride(1), times))
            longest = max(longest, length)
            at += times * space * step
    if longest:
        _copy_kernel[(len(facts), triton.cdiv(heads * longest, ROWS))](
            torch.tensor(facts).to(pool.device, non_blocking=True),
            pool,
            HEADS=heads,
            WIDTH=width,
            WIDE=triton.next_power_of_2(width),
            ROWS=ROWS,
        )
