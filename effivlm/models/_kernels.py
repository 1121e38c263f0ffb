"""Kernels for packed weights: which there are for a layer on a device, and their modules in the place of plain ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from effivlm.decoding.joined import TOGETHER, Columns
from effivlm.decoding.quantised import Fp8Linear, Int4Linear, QuantizedLinear
from effivlm.decoding.weights import Packed, together
from effivlm.kernels import int4

HALF = (torch.bfloat16, torch.float16)
Made = Callable[[Packed, Tensor | None, torch.dtype], QuantizedLinear]


def kernel_for(weights: Packed, dtype: torch.dtype) -> Made | None:
    """What makes a layer of such weights on their device; None where no kernel reads them."""
    if not weights.codes.is_cuda:
        return None
    outputs, inputs = weights.shape
    if weights.four:
        fits = weights.group == int4.INPUTS and outputs % int4.OUTPUTS == 0 and inputs % int4.INPUTS == 0
        return Int4Linear if fits and dtype in HALF and int4.installed() else None
    able = torch.cuda.get_device_capability(weights.codes.device) >= (9, 0)
    fits = weights.scale.shape[1] == 1 and outputs % 16 == 0 and inputs % 16 == 0
    return Fp8Linear if able and fits and dtype == torch.bfloat16 else None


def install(
    layers: Sequence[nn.Module], weights: Mapping[nn.Module, Packed], dtype: torch.dtype, made: Made | None = None
) -> None:
    """Put a kernel's module in the place of every linear layer that `weights` names; projections of one input become one.

    `made` makes them, instead of `kernel_for`. Every one of the weights has to have a kernel.
    """
    for layer in layers:
        for place, names in TOGETHER.items():
            owner: Any = getattr(layer, place, None)
            parts: list[Any] = [getattr(owner, name, None) for name in names]
            held = [weights[part] for part in parts if part in weights]
            if len(held) == len(parts) and len({part.form for part in held}) == 1 and _biases(parts) in (0, len(parts)):
                joint = _made(together(held), _bias(parts), dtype, made)
                start = 0
                for name, part in zip(names, parts, strict=True):
                    end = start + part.out_features
                    setattr(owner, name, Columns(joint, start, end, copied=place == "self_attn"))
                    start = end
        for owner in list(layer.modules()):
            for name, part in list(owner.named_children()):
                if part in weights:
                    setattr(owner, name, _made(weights[part], _bias([part]), dtype, made))


def _made(weights: Packed, bias: Tensor | None, dtype: torch.dtype, made: Made | None) -> QuantizedLinear:
    kind = made or kernel_for(weights, dtype)
    if kind is None:
        raise ValueError(f"no kernel reads {weights.shape[0]} x {weights.shape[1]} such weights in {dtype}")
    return kind(weights, bias, dtype)


def _biases(parts: Sequence[Any]) -> int:
    return sum(part.bias is not None for part in parts)


def _bias(parts: Sequence[Any]) -> Tensor | None:
    found = [part.bias.data for part in parts if part.bias is not None]
    return torch.cat(found) if found else None
