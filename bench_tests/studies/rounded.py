"""Weights rounded on the device, and layers that read them: what `weight_kernels.py` compares."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from effivlm.decoding.quantised import Fp8Linear, Int4Linear, plain_rows
from effivlm.decoding.weights import Packed, packed

GROUP = 128


def rounded_int4(weight: Tensor, asymmetric: bool = False) -> Packed:
    """Weights [N, K] rounded to the nearest of 16 codes, with a scale for every group of 128 inputs."""
    grouped = weight.float().unflatten(1, (-1, GROUP))
    if asymmetric:
        low, high = grouped.amin(2).clamp_max(0), grouped.amax(2).clamp_min(0)
        scale = ((high - low) / 15).clamp_min(1e-8).bfloat16()
        zero = (-low / scale.float()).round().clamp(0, 15)
    else:
        scale = (grouped.abs().amax(2) / 7).clamp_min(1e-8).bfloat16()
        zero = torch.full_like(scale, 8, dtype=torch.float32)
    codes = (grouped / scale.float()[..., None] + zero[..., None]).round().clamp(0, 15).flatten(1)
    pieces = [packed(piece.to(torch.uint8), 4) for piece in codes.split(4096)]  # words are wide while they are made
    return Packed(torch.cat(pieces), scale, zero.to(torch.uint8) if asymmetric else None, GROUP)


def rounded_fp8(weight: Tensor) -> Packed:
    """Weights [N, K] rounded to e4m3, with a scale for every output."""
    codes, scale = plain_rows(weight)
    return Packed(codes, scale)


class Scaled(Fp8Linear):
    """The same through torch alone, at any number of rows, with its slower and more exact accumulation."""

    exact = True

    def product(self, rows: Tensor) -> Tensor:
        codes, scale = self.rounded(rows)
        found = torch._scaled_mm(
            codes, self.weight.T, scale, self.scale, out_dtype=self.dtype, use_fast_accum=not self.exact
        )
        return found if self.bias is None else found + self.bias


class Fast(Scaled):
    """As above, with torch's faster and less exact accumulation."""

    exact = False


class Apart(Fp8Linear):
    """Activations rounded by a kernel of their own, also where a compiler could do so beside something else."""

    def rounded(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = torch.ops.effivlm.fp8_rows(rows)
        return found


class After(Apart):
    """Scales multiplied after the product of many rows, where a compiler does so beside something else."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.register_buffer("one", torch.ones((), device="cuda"))

    def product(self, rows: Tensor) -> Tensor:
        if rows.shape[0] <= 32:
            return super().product(rows)
        codes, scale = self.rounded(rows)
        found = torch._scaled_mm(codes, self.weight.T, self.one, self.one, out_dtype=self.dtype, use_fast_accum=True)
        whole = found.float() * scale * self.scale
        return (whole if self.bias is None else whole + self.bias).to(self.dtype)


class Whole(nn.Module):
    """e4m3 weights and activations of 16 bits through humming."""

    def __init__(self, weights: Packed, bias: None, dtype: torch.dtype) -> None:
        from humming.layer import HummingLayer

        super().__init__()
        described = {"dtype": "float8e4m3", "group_size": 0}
        self.layer = HummingLayer(*weights.shape, weight_config=described, torch_dtype=dtype).to("cuda")
        words, scale = weights.codes.view(torch.int32), weights.scale.to(dtype)
        self.layer.load_from_tensors({"weight": words, "weight_scale": scale})
        self.layer.transform()

    def forward(self, rows: Tensor) -> Tensor:
        return self.layer(rows)


class Sparse(nn.Module):
    """Weights of which two of four are zero, through torch and cuSPARSELt."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        lowest = weight.abs().unflatten(1, (-1, 4)).argsort(2)[..., :2]
        self.plain = weight.unflatten(1, (-1, 4)).scatter(2, lowest, 0.0).flatten(1)
        self.weight = torch.sparse.to_sparse_semi_structured(self.plain)

    def forward(self, rows: Tensor) -> Tensor:
        return torch.nn.functional.linear(rows, self.weight)


KINDS: dict[str, tuple[Callable[[Tensor], Packed], Any]] = {
    "int4": (rounded_int4, Int4Linear),
    "fp8": (rounded_fp8, Fp8Linear),
    "int4, with zeros": (partial(rounded_int4, asymmetric=True), Int4Linear),
    "w8a16": (rounded_fp8, Whole),
    "fp8 apart": (rounded_fp8, Apart),
    "fp8 after": (rounded_fp8, After),
}
"""Ways to round weights, and the layers that read them."""
