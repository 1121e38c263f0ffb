"""Cosine similarity of many tokens, block by block of rows: memory grows with their number, not with its square."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

ELEMENTS = 1 << 23
"""Similarities that are held at once; 32 MiB in float32."""


def unit(vectors: Tensor) -> Tensor:
    """Vectors [n, c] at length one, in float32; zero stays zero."""
    return normalize(vectors.float(), dim=-1)


def blocks(rows: Tensor, columns: int) -> tuple[Tensor, ...]:
    """Rows [R, c] in as few blocks as may be compared with `columns` others at once."""
    parts: tuple[Tensor, ...] = rows.split(max(1, ELEMENTS // max(1, columns)))
    return parts


def closest(rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """For each of the unit rows [R, c] the highest similarity to a unit column [S, c], and that column's number (lowest)."""
    found = [(block @ columns.T).max(1) for block in blocks(rows, len(columns))]
    return torch.cat([best.values for best in found]), torch.cat([best.indices for best in found])


def closest_other(rows: Tensor) -> Tensor:
    """For each of the unit rows [n, c] the highest similarity to another one [n]; each pair is compared once."""
    highest = rows.new_full((len(rows),), -1.0)
    start = 0
    for block in blocks(rows, len(rows)):
        end = start + len(block)
        alike = block @ rows[start:].T
        alike.diagonal().fill_(-1)
        torch.maximum(highest[start:end], alike.amax(1), out=highest[start:end])
        torch.maximum(highest[start:], alike.amax(0), out=highest[start:])
        start = end
    return highest


def neighbours(vectors: Tensor, rows: Tensor, count: int) -> Tensor:
    """The `count` other unit vectors [n, c] most similar to each of those numbered `rows` [R]; ascending [R, count].

    Ties go to the lower number; `count` < n.
    """
    found = []
    for block in rows.split(max(1, ELEMENTS // len(vectors))):
        alike = vectors[block] @ vectors.T
        alike.scatter_(1, block[:, None], float("-inf"))
        last = alike.topk(count).values[:, -1:]
        above, level = alike > last, alike == last
        left = count - above.sum(1, keepdim=True)
        chosen = above | (level & (level.cumsum(1, dtype=torch.int32) <= left))
        found.append(chosen.nonzero()[:, 1].reshape(-1, count))
    return torch.cat(found)
