"""Where the visual tokens of an image lie: in which tile or frame, and in which grid that the tokens run over."""

from __future__ import annotations

import torch
from torch import Tensor


def blocks_of(places: Tensor) -> list[Tensor]:
    """Numbers of the tokens of every tile or frame, ascending, of places [n, 3]; newline markers belong to none."""
    blocks, order = places[:, 0].sort(stable=True)
    names, sizes = torch.stack(torch.unique_consecutive(blocks, return_counts=True)).tolist()
    return [part for name, part in zip(names, order.split(sizes), strict=True) if name >= 0]


def grids_of(places: Tensor) -> list[Tensor]:
    """Numbers of the tokens of every grid that tokens run over row by row: a frame, a tile, or tiles packed side by side.

    Places [n, 3] hold (block, row, column), and row and column count in the grid: one begins wherever both are 0.
    """
    real = (places[:, 0] >= 0).nonzero()[:, 0]
    begin = (places[real, 1:] == 0).all(1)
    begin[:1] = True
    starts = begin.nonzero()[:, 0].tolist()
    return list(real.split([end - start for start, end in zip(starts, [*starts[1:], len(real)], strict=True)]))
