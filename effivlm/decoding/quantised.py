"""Linear layers whose weights stay packed, each behind a kernel that reads them as they are."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from effivlm.decoding.weights import Packed, packed
from effivlm.kernels import int4
from effivlm.kernels.placed import has_triton

FEW = 32
"""Rows up to which a product costs what its weights cost to read."""


class QuantizedLinear(nn.Module):
    """A linear layer with packed weights, which are its parameters; what the kernel needs beside them are buffers."""

    kernel: ClassVar[str]
    made: Tensor | None = None

    def __init__(self, weights: Packed, bias: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.out_features, self.in_features = weights.shape
        self.dtype = dtype
        self.bias = None if bias is None else _kept(bias)

    def product(self, rows: Tensor) -> Tensor:
        """The product [M, N] of rows [M, K] and the weights, with the bias."""
        raise NotImplementedError

    def forward(self, entered: Tensor) -> Tensor:
        found: Tensor = self.product(entered.reshape(-1, self.in_features)).unflatten(0, entered.shape[:-1])
        return found

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, {self.kernel}"


class Int4Linear(QuantizedLinear):
    """4 bit weights and activations of 16 bits through humming, at any number of rows."""

    kernel = "humming"

    def __init__(self, weights: Packed, bias: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__(weights, bias, dtype)
        zero = None if weights.zero is None else packed(weights.zero.T, 4).T.contiguous()
        made = int4.prepared(weights.codes, weights.scale.to(dtype).contiguous(), zero, weights.group)
        self.weight, self.scale = _kept(made.weight), _kept(made.scale)
        self.zero = None if made.zero is None else _kept(made.zero)
        self.layer = made.layer
        self.register_buffer("locks", made.locks, persistent=False)

    def product(self, rows: Tensor) -> Tensor:
        found: Tensor = torch.ops.effivlm.int4_product(
            rows, self.weight, self.scale, self.zero, self.locks, self.layer, self.out_features
        )
        return found if self.bias is None else found + self.bias


class Fp8Linear(QuantizedLinear):
    """e4m3 weights, and activations brought to e4m3 row by row: many rows through torch, few through a kernel of our own."""

    kernel = "torch._scaled_mm"

    def __init__(self, weights: Packed, bias: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__(weights, bias, dtype)
        self.own = weights.codes.is_cuda and has_triton()
        self.weight = _kept(weights.codes.contiguous())
        self.scale = _kept(weights.scale.float().expand(self.out_features, 1).reshape(1, -1).contiguous())
        if self.own:
            import effivlm.kernels.fp8  # noqa: F401  registers the operators

    def rounded(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Codes [M, K] (e4m3) and scales [M, 1] (float32) of activations [M, K].

        A compiler puts the plain form into the kernel of what stands before it; alone it would be five, and Triton's is one.
        """
        if self.own and not torch.compiler.is_compiling():
            found: tuple[Tensor, Tensor] = torch.ops.effivlm.fp8_rows(rows)
            return found
        return plain_rows(rows)

    def product(self, rows: Tensor) -> Tensor:
        codes, scale = self.rounded(rows)
        if self.own and rows.shape[0] <= FEW:
            whole: Tensor = torch.ops.effivlm.fp8_few_rows(codes, self.weight).sum(0) * scale * self.scale
            return (whole if self.bias is None else whole + self.bias).to(self.dtype)
        found = torch._scaled_mm(
            codes, self.weight.T, scale, self.scale, out_dtype=self.dtype, use_fast_accum=codes.is_cuda
        )
        return found if self.bias is None else found + self.bias


def plain_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Codes [M, K] (e4m3) and scales [M, 1] (float32) of rows [M, K]; each row's largest entry becomes 448."""
    entries = rows.float()
    scale = entries.abs().amax(1, keepdim=True).clamp_min(1e-12) / 448.0
    return (entries / scale).to(torch.float8_e4m3fn), scale


def _kept(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)
