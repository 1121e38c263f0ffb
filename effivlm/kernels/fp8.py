"""The Triton kernels of FP8 weights: activations quantised row by row, and products of few rows. Imported on CUDA only."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from effivlm.kernels.placed import placed

LARGEST = 448.0
"""The largest number that e4m3 holds."""
LEAST = 1e-12
"""What stands for the largest entry of a row of zeros."""
OUTPUTS, WIDTH = 64, 128
"""Outputs of one program, and the inputs that it takes at once: an accumulator of the tensor cores keeps fewer bits than
float32, so what so many inputs come to is added outside of it."""
PROGRAMS = 640
"""About as many keep a card of 132 processors reading; where outputs are too few, inputs are divided too."""
MOST_SPLITS = 16


@triton.jit  # type: ignore[untyped-decorator]
def _quantise_kernel(  # type: ignore[no-untyped-def]  # the compiler reads annotations, and knows only its own
    entered_ptr,
    codes_ptr,
    scale_ptr,
    width,
    LARGEST: tl.constexpr,
    LEAST: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    there = at < width
    entry = tl.load(entered_ptr + row * width + at, mask=there, other=0.0).to(tl.float32)
    scale = tl.maximum(tl.max(tl.abs(entry), 0), LEAST) / LARGEST
    # what is not finite has no order, and must not become a finite number
    tl.store(scale_ptr + row, scale + tl.sum(entry * 0.0, 0))
    tl.store(codes_ptr + row * width + at, (entry / scale).to(codes_ptr.dtype.element_ty), mask=there)


@placed
def _quantised(entered: Tensor) -> tuple[Tensor, Tensor]:
    rows, width = entered.shape
    entered = entered.contiguous()
    codes = torch.empty(rows, width, dtype=torch.float8_e4m3fn, device=entered.device)
    scale = torch.empty(rows, 1, dtype=torch.float32, device=entered.device)
    block = max(16, triton.next_power_of_2(width))
    _quantise_kernel[(rows,)](
        entered,
        codes,
        scale,
        width,
        LARGEST=LARGEST,
        LEAST=LEAST,
        BLOCK=block,
        num_warps=max(1, min(16, block // 512)),
    )
    return codes, scale


quantised = torch.library.custom_op(
    "effivlm::fp8_rows", _quantised, mutates_args=(), schema="(Tensor entered) -> (Tensor, Tensor)"
)
"""Codes [M, K] (e4m3) and scales [M, 1] (float32) of activations [M, K]; each row's largest entry becomes 448."""


@quantised.register_fake
def _(entered: Tensor) -> tuple[Tensor, Tensor]:
    codes = torch.empty_like(entered, dtype=torch.float8_e4m3fn, memory_format=torch.contiguous_format)
    return codes, entered.new_empty(entered.shape[0], 1, dtype=torch.float32)


@triton.jit(do_not_specialize=["rows"])  # type: ignore[untyped-decorator]
def _few_rows_kernel(  # type: ignore[no-untyped-def]  # as above
    codes_ptr,
    weight_ptr,
    out_ptr,
    rows,
    outputs,
    width,
    STEPS: tl.constexpr,
    ROWS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    part = tl.program_id(1)
    mine = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
    row = tl.arange(0, ROWS)
    there, asked = mine[:, None] < outputs, row[None, :] < rows
    weight_at = weight_ptr + mine[:, None].to(tl.int64) * width
    codes_at = codes_ptr + row[None, :] * width
    total = tl.zeros([OUTPUTS, ROWS], tl.float32)
    for step in range(STEPS):
        inner = (part * STEPS + step) * WIDTH + tl.arange(0, WIDTH)
        weight = tl.load(weight_at + inner[None, :], mask=there & (inner[None, :] < width), other=0.0)
        codes = tl.load(codes_at + inner[:, None], mask=asked & (inner[:, None] < width), other=0.0)
        total += tl.dot(weight, codes)
    out_at = out_ptr + (part * rows + row[None, :]).to(tl.int64) * outputs + mine[:, None]
    tl.store(out_at, total, mask=asked & there)


def _splits(outputs: int, width: int) -> int:
    """Into how many parts the inputs are divided: enough programs, and at least four steps for each."""
    wanted = PROGRAMS // -(-outputs // OUTPUTS)
    return max(1, min(wanted, width // (4 * WIDTH), MOST_SPLITS))


@placed
def _few_rows(codes: Tensor, weight: Tensor) -> Tensor:
    rows, width = codes.shape
    outputs = len(weight)
    splits = _splits(outputs, width)
    out = torch.empty(splits, rows, outputs, dtype=torch.float32, device=codes.device)
    _few_rows_kernel[(-(-outputs // OUTPUTS), splits)](
        codes,
        weight,
        out,
        rows,
        outputs,
        width,
        STEPS=-(-width // (splits * WIDTH)),
        ROWS=max(16, triton.next_power_of_2(rows)),
        OUTPUTS=OUTPUTS,
        WIDTH=WIDTH,
        num_warps=4,
        num_stages=5,
    )
    return out


few_rows = torch.library.custom_op(
    "effivlm::fp8_few_rows", _few_rows, mutates_args=(), schema="(Tensor codes, Tensor weight) -> Tensor"
)
"""Parts [S, M, N] (float32) of the product of codes [M, K] and weights [N, K], both e4m3: their sum over S is the product, before
any scale. Summed outside, where the compiler does it together with what follows, and in one order."""


@few_rows.register_fake
def _(codes: Tensor, weight: Tensor) -> Tensor:
    splits = _splits(len(weight), codes.shape[1])
    return codes.new_empty(splits, codes.shape[0], len(weight), dtype=torch.float32)
