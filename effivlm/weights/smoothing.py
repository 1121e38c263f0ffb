"""AWQ's search: by which powers of its size each input of a block is scaled before the weights behind it are rounded."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from effivlm.compression.weights import Goal


@dataclass(frozen=True, slots=True)
class Block:
    """One block of the model with its calibration inputs."""

    module: nn.Module


def smooth(block: Block, goal: Goal, points: int, symmetric: bool) -> None:
    """Scale the inputs of a block's linears where rounding is then felt less; the block computes the same as before."""
    raise NotImplementedError
