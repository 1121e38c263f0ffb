"""Grids of few bits: where a weight may lie, and the codes of the points.

Codes of whole numbers are signed, from -2^(b-1) on, as compressed-tensors stores them. Scales are rounded to the precision they
are stored in before any code is chosen, so that what is loaded is what was computed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from effivlm.compression.weights import Goal, Grid, Solved

LARGEST_FP8 = 448.0


def group_of(columns: int, group: int) -> int:
    """How many inputs share a scale in a layer of so many; all where a group is larger.

    Raises:
        ValueError: groups of this size leave a rest.
    """
    size = min(group or columns, columns)
    if columns % size:
        raise ValueError(
            f"{columns} inputs do not split into groups of {group}: take a group that divides them, e.g. 32"
        )
    return size


def grid_of(weight: Tensor, goal: Goal, symmetric: bool, stored: str) -> Grid:
    """The grid of a weight [out, in] in float32: from the smallest to the largest value of each group, zero among them."""
    dtype = getattr(torch, stored)
    groups = weight.unflatten(1, (-1, group_of(weight.shape[1], goal.group)))
    size = groups.shape[2]
    if goal.form == "fp8":
        return Grid(8, size, goal.form, _stored(groups.abs().amax(2) / LARGEST_FP8, dtype), None)
    steps = 2**goal.bits - 1
    if symmetric:
        return Grid(goal.bits, size, goal.form, _stored(groups.abs().amax(2) * 2 / steps, dtype), None)
    low, high = groups.amin(2).clamp(max=0), groups.amax(2).clamp(min=0)
    scale = _stored((high - low) / steps, dtype)
    first = -(2 ** (goal.bits - 1))
    zero = (first - low / scale.float()).round().clamp(first, first + steps)
    return Grid(goal.bits, size, goal.form, scale, zero.to(torch.int8))


def _stored(scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Scales in the precision they are stored in; 1 where all weights of a group are zero, or too small to have one."""
    rounded = scale.to(dtype)
    return torch.where(rounded == 0, torch.ones_like(rounded), rounded)


def codes_of(weight: Tensor, grid: Grid) -> Tensor:
    """The codes [out, in] of the points that lie nearest: int8, or float8 numbers."""
    groups: Tensor = weight.unflatten(1, (-1, grid.group)) / grid.scale.float()[..., None]
    if grid.form == "fp8":
        return groups.clamp(-LARGEST_FP8, LARGEST_FP8).to(torch.float8_e4m3fn).flatten(1)
    if grid.zero is not None:
        groups = groups + grid.zero[..., None]
    first = -(2 ** (grid.bits - 1))
    return groups.round().clamp(first, -first - 1).to(torch.int8).flatten(1)


def weight_of(codes: Tensor, grid: Grid) -> Tensor:
    """The weights [out, in] that codes stand for, computed in the stored precision as whoever loads them does, in float32."""
    groups: Tensor = codes.to(grid.scale.dtype).unflatten(1, (-1, grid.group))
    if grid.zero is not None:
        groups = groups - grid.zero[..., None].to(groups)
    return (groups * grid.scale[..., None]).flatten(1).float()


def rounded(weight: Tensor, grid: Grid) -> Solved:
    """A weight at the nearest points of its grid."""
    codes = codes_of(weight, grid)
    return Solved(weight_of(codes, grid), codes, grid)
