"""Products with 4 bit weights through humming (the package humming-kernels), which compiles its kernels at first use on CUDA."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

OUTPUTS, INPUTS = 128, 128
"""Of what the outputs and inputs of a layer have to be multiples: on Hopper four warps of 32 outputs work together."""


@cache
def installed() -> bool:
    """Whether humming is there."""
    return find_spec("humming") is not None


@dataclass(frozen=True, slots=True)
class Prepared:
    """Weights in the order in which the kernel reads them, and the description of the layer that it is called with."""

    weight: Tensor
    scale: Tensor
    zero: Tensor | None
    locks: Tensor
    layer: str


def prepared(codes: Tensor, scale: Tensor, zero: Tensor | None, group: int) -> Prepared:
    """Codes [N, K / 8] (int32, eight to a word along the inputs, lowest first) in the order of the kernel.

    Args:
        scale: [N, K / group], of the type that products are made in, bfloat16 or float16.
        zero: [N / 8, K / group] (int32, packed along the outputs), or None where 8 stands for zero.
    """
    from humming.layer import HummingLayer

    outputs, inputs = len(codes), 8 * codes.shape[1]
    described = {"dtype": "uint4", "group_size": group, "has_zero_point": zero is not None}
    with torch.cuda.device(codes.device):
        layer = HummingLayer(outputs, inputs, weight_config=described, torch_dtype=scale.dtype).to(codes.device)
        tensors = {"weight": codes, "weight_scale": scale}
        layer.load_from_tensors(tensors if zero is None else {**tensors, "zero_point": zero})
        layer.transform()
    found = getattr(layer, "zero_point", None)
    kept = None if zero is None or found is None else found.data
    return Prepared(layer.weight.data, layer.weight_scale.data, kept, layer.locks, layer.humming_config.to_str())


def _product(
    rows: Tensor, weight: Tensor, scale: Tensor, zero: Tensor | None, locks: Tensor, layer: str, outputs: int
) -> Tensor:
    from humming.ops import humming_gemm

    found: Tensor = humming_gemm(
        layer_config=layer,
        inputs=rows.contiguous(),
        weight=weight,
        weight_scale=scale,
        zero_point=zero,
        locks=locks,
    )
    return found


product = torch.library.custom_op(
    "effivlm::int4_product",
    _product,
    mutates_args=(),
    schema="(Tensor rows, Tensor weight, Tensor scale, Tensor? zero, Tensor locks, str layer, int outputs) -> Tensor",
)
"""The product [M, N] of rows [M, K] and prepared weights. The locks are as they were afterwards."""


@product.register_fake
def _(
    rows: Tensor, weight: Tensor, scale: Tensor, zero: Tensor | None, locks: Tensor, layer: str, outputs: int
) -> Tensor:
    return rows.new_empty(rows.shape[0], outputs)
