"""Kernels for packed weights: which there are for a layer on a device, and their modules in the place of plain ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from effivlm.decoding.joined import TOGETHER, Columns
from effivlm.decoding.quantised import Fp8Linear, Int4Linear, QuantizedLinear
from effivlm.decoding.weights import Packed, together
from effivlm.kernels import int4
from effivlm.models._formats import Scheme
from effivlm.models._guards import told

HALF = (torch.bfloat16, torch.float16)
KINDS: dict[torch.dtype, type[QuantizedLinear]] = {torch.int32: Int4Linear, torch.float8_e4m3fn: Fp8Linear}
"""By what codes are stored in."""
TRIED = (1, 3, 100)
"""Rows of the products that a new kernel is tried with."""
FAR = 0.06
"""How far off they may be: rounding activations to e4m3 costs 0.03, whatever else is wrong costs more."""
INSTEAD = "--vlm-kernels none runs the dequantised weights"
_TRIED: set[tuple[object, ...]] = set()


def able(scheme: Scheme, outputs: int, inputs: int, device: str, dtype: torch.dtype) -> bool:
    """Whether a kernel reads a layer of this scheme and size there."""
    if not device.startswith("cuda"):
        return False
    if scheme.floating:
        fits = scheme.dynamic and not scheme.group and not any(scheme.block) and outputs % 16 == inputs % 16 == 0
        return fits and dtype == torch.bfloat16 and torch.cuda.get_device_capability(device) >= (9, 0)
    fits = scheme.group == int4.INPUTS and outputs % int4.OUTPUTS == inputs % int4.INPUTS == 0
    return scheme.bits == 4 and scheme.activations == 16 and fits and dtype in HALF and int4.installed()


def install(layers: Sequence[nn.Module], weights: Mapping[nn.Module, Packed], dtype: torch.dtype) -> set[str]:
    """Put a kernel's module in the place of every linear layer that `weights` names; projections of one input become one.

    Returns the names of the kernels.

    Raises:
        ValueError: a kernel cannot be made here, or computes something else; says what to do.
    """
    used: set[str] = set()

    def made(held: Sequence[Packed], parts: Sequence[Any]) -> QuantizedLinear:
        found = _made(together(held), _bias(parts), dtype)
        used.add(found.kernel)
        return found

    for layer in layers:
        for place, names in TOGETHER.items():
            owner: Any = getattr(layer, place, None)
            parts: list[Any] = [getattr(owner, name, None) for name in names]
            held = [weights[part] for part in parts if part in weights]
            if len(held) == len(parts) and len({part.form for part in held}) == 1 and _biases(parts) in (0, len(parts)):
                joint, start = made(held, parts), 0
                for name, part in zip(names, parts, strict=True):
                    end = start + part.out_features
                    setattr(owner, name, Columns(joint, start, end, copied=place == "self_attn"))
                    start = end
        for owner in list(layer.modules()):
            for name, part in list(owner.named_children()):
                if part in weights:
                    setattr(owner, name, made([weights[part]], [part]))
    return used


def _made(weights: Packed, bias: Tensor | None, dtype: torch.dtype) -> QuantizedLinear:
    """A layer behind its kernel; the first one of every size is tried out."""
    kind = KINDS[weights.codes.dtype]
    size = (*weights.shape, *weights.form[:-1], dtype, str(weights.codes.device))
    try:
        found: QuantizedLinear = kind(weights, bias, dtype)
        error = 0.0 if size in _TRIED else _error(found, weights, bias, dtype)
    except Exception as error_:  # a compiler, a driver, a library: each has kinds of its own
        raise ValueError(f"kernel {kind.kernel} cannot be made here ({told(error_)}); {INSTEAD}") from error_
    if not error <= FAR:
        raise ValueError(f"kernel {kind.kernel} is off by {error:.2g} of a product of {_named(weights)}; {INSTEAD}")
    _TRIED.add(size)
    return found


@torch.inference_mode()
def _error(layer: QuantizedLinear, weights: Packed, bias: Tensor | None, dtype: torch.dtype) -> float:
    """How far products of few and of many rows are from those of the dequantised weights, relative to them."""
    generator, whole, worst = torch.Generator().manual_seed(0), weights.dense(torch.float32), 0.0
    for count in TRIED:
        rows = torch.randn(count, weights.shape[1], generator=generator).to(whole.device, dtype)
        expected = torch.nn.functional.linear(rows.float(), whole, None if bias is None else bias.float())
        worst = max(worst, float((layer(rows).float() - expected).norm() / expected.norm()))
    return worst


def _named(weights: Packed) -> str:
    return f"{weights.shape[0]} x {weights.shape[1]} weights"


def _biases(parts: Sequence[Any]) -> int:
    return sum(part.bias is not None for part in parts)


def _bias(parts: Sequence[Any]) -> Tensor | None:
    found = [part.bias.data for part in parts if part.bias is not None]
    return torch.cat(found) if found else None
