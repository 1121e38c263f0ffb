"""AWQ by AutoAWQ 0.2.9: its scales, its clips, and its grid."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from effivlm.compression.weights import Goal, Grid, Linear, Solved
from effivlm.weights import _autoawq
from effivlm.weights.grids import group_of, rounded
from effivlm.weights.smoothing import Block


def smooth(block: Block, goal: Goal, points: int, symmetric: bool) -> None:
    """Scale the inputs of a block's linears, and clip their weights, as AutoAWQ finds it best for what entered the block.

    It always tries 20 `points`.

    Raises:
        ValueError: autoawq is not installed, or the block's form or sizes do not suit it.
    """
    before = {name: tensor.clone() for name, tensor in block.module.named_parameters()}
    seen = _entered(block)
    _autoawq.smooth(block.module, seen, bits=goal.bits, group=goal.group, symmetric=symmetric, clip=True)
    weights = {f"{name}.weight" for name in block.linears}
    after = block.module.named_parameters()
    block.changed.update(
        name for name, tensor in after if name not in weights and not torch.equal(tensor, before[name])
    )


def rtn(linear: Linear, symmetric: bool) -> Solved:
    """Every weight at the nearest point of AutoAWQ's grid, with scales in the precision they are stored in.

    That is half precision where its own format holds them: 4 bits in groups with zero points.
    """
    goal, size = linear.goal, group_of(linear.weight.shape[1], linear.goal.group)
    _, scale, zero = _autoawq.rounded(linear.weight, bits=goal.bits, group=size, symmetric=symmetric)
    signed = None if zero is None else (zero - 2 ** (goal.bits - 1)).to(torch.int8)
    own = zero is not None and goal.bits == 4 and goal.group
    stored: torch.dtype = torch.float16 if own else getattr(torch, linear.stored)
    return rounded(linear.weight, Grid(goal.bits, size, goal.form, scale.to(stored), signed))


def _entered(block: Block) -> list[_autoawq.Seen]:
    """What enters a block in every calibration sample."""
    found: list[_autoawq.Seen] = []

    def look(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        arguments = dict(named)
        hidden = given[0] if given else arguments.pop("hidden_states")
        found.append(_autoawq.Seen(hidden, arguments))

    with block.module.register_forward_pre_hook(look, with_kwargs=True):
        for sample in range(block.samples):
            block.run(sample)
    return found
