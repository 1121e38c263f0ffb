"""AWQ's search: by which powers of its size each input of a block is scaled before the weights behind it are rounded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from effivlm.compression.weights import Goal
from effivlm.records import Unsupported
from effivlm.weights.grids import grid_of, rounded
from effivlm.weights.seen import Seen

SETS = (
    ("input_layernorm", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
    ("self_attn.v_proj", ("self_attn.o_proj",)),
    ("post_attention_layernorm", ("mlp.gate_proj", "mlp.up_proj")),
    ("mlp.up_proj", ("mlp.down_proj",)),
)
"""What makes the input of which linear layers: a norm's or a linear layer's outputs can take over a scale."""
SMALLEST = 1e-4


@dataclass(frozen=True, slots=True)
class Block:
    """One block of the model, its linear layers by their names inside it, and what entered each; `stored` is the precision of
    what is written. `changed` takes the names of parameters beside the linears' weights that a method changes. `run` sends one
    of the calibration `samples` through the block again."""

    module: nn.Module
    linears: Mapping[str, nn.Linear]
    seen: Mapping[str, Seen]
    stored: str
    changed: set[str]
    samples: int
    run: Callable[[int], object]


def smooth(block: Block, goal: Goal, points: int, symmetric: bool) -> None:
    """Scale the inputs of a block's linears where rounding is then felt less; the block computes the same as before.

    Raises:
        Unsupported: the block is not made of the parts that are known to take over a scale.
    """
    for source, behind in SETS:
        try:
            module: Any = block.module.get_submodule(source)
        except AttributeError as error:
            raise Unsupported(f"AWQ does not know blocks of {type(block.module).__name__}: {error}") from None
        linears = [block.linears[name] for name in behind if name in block.linears]
        if len(linears) != len(behind):
            raise Unsupported(f"AWQ needs {', '.join(behind)} in a block of {type(block.module).__name__}")
        if len(module.weight) != linears[0].in_features:
            continue  # grouped heads: one value feeds several inputs
        scale = best_scale(
            [linear.weight.float() for linear in linears], block.seen[behind[0]], goal, points, symmetric, block.stored
        )
        _fold(module, linears, scale)
        block.changed.update({f"{source}.{name}" for name, _ in module.named_parameters() if name != "weight"})
        if not isinstance(module, nn.Linear):
            block.changed.add(f"{source}.weight")


def best_scale(weights: Sequence[Tensor], seen: Seen, goal: Goal, points: int, symmetric: bool, stored: str) -> Tensor:
    """The scale [in] among powers k / points of the mean size under which rounding changes the outputs least; ones are the
    first candidate, and stay where none is better."""
    if seen.hessian is None:
        raise ValueError("no products of inputs were gathered")
    size = (seen.sizes / seen.total).clamp(min=SMALLEST)
    best, least = torch.ones_like(size), _error(weights, torch.ones_like(size), seen.hessian, goal, symmetric, stored)
    for number in range(1, points):
        scale = size ** (number / points)
        scale = (scale / (scale.max() * scale.min()).sqrt()).clamp(min=SMALLEST)
        error = _error(weights, scale, seen.hessian, goal, symmetric, stored)
        if error < least:
            best, least = scale, error
    return best


def _error(
    weights: Sequence[Tensor], scale: Tensor, hessian: Tensor, goal: Goal, symmetric: bool, stored: str
) -> float:
    """The summed square of what rounding changes in the outputs, over all calibration tokens."""
    total = 0.0
    for weight in weights:
        scaled = weight * scale
        change = (rounded(scaled, grid_of(scaled, goal, symmetric, stored)).weight - scaled) / scale
        total += float(((change @ hessian) * change).sum())
    return total


def _fold(source: Any, linears: Sequence[nn.Linear], scale: Tensor) -> None:
    """Divide what makes an input, and multiply the weights behind it."""
    with torch.no_grad():
        for parameter in source.parameters():
            shape = (-1, *[1] * (parameter.dim() - 1))
            parameter.copy_(parameter.float() / scale.view(shape))
        for linear in linears:
            linear.weight.copy_(linear.weight.float() * scale)
