"""Cosine similarity of many tokens, block by block of rows: memory grows with their number, not with its square."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from effivlm.compression.choose import numbers_of

ELEMENTS = 1 << 23
"""Similarities that are held at once; 32 MiB in float32."""
MOST = 1 << 26
"""Similarities that are held at once where a kernel picks among them, or a GPU would compute them twice; 256 MiB in float32."""
PARTS = 8
"""Into how many rows of blocks a symmetric product is cut."""


def unit(vectors: Tensor) -> Tensor:
    """Vectors [n, c] at length one, in float32; zero stays zero."""
    return normalize(vectors.float(), dim=-1)


def blocks(rows: Tensor, columns: int) -> tuple[Tensor, ...]:
    """Rows [R, c] in as few blocks as may be compared with `columns` others at once."""
    parts: tuple[Tensor, ...] = rows.split(max(1, ELEMENTS // max(1, columns)))
    return parts


def alike(rows: Tensor) -> Tensor:
    """Similarities [n, n] of unit rows [n, c] with each other; each pair is compared once."""
    found, start = rows.new_empty(len(rows), len(rows)), 0
    for block in rows.split(-(-len(rows) // PARTS)):
        end = start + len(block)
        torch.mm(block, rows[start:].T, out=found[start:end, start:])
        found[end:, start:end] = found[start:end, end:].T
        start = end
    return found


def closest(rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """For each of the unit rows [R, c] the highest similarity to a unit column [S, c], and that column's number (lowest)."""
    found = [(block @ columns.T).max(1) for block in blocks(rows, len(columns))]
    return torch.cat([best.values for best in found]), torch.cat([best.indices for best in found])


def closest_of_each(rows: Tensor, columns: Tensor, real: Tensor) -> Tensor:
    """For each of the unit rows [T, R, c] the number of the most similar unit column [T, S, c] of its own (lowest) [T, R], among
    those that are `real` [T, S]."""
    parts = rows.split(max(1, ELEMENTS // max(1, real.numel())), 1)
    return torch.cat(
        [(part @ columns.mT).masked_fill(~real[:, None], float("-inf")).max(2).indices for part in parts], 1
    )


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


def variances(features: Tensor, groups: Tensor, real: Tensor) -> Tensor:
    """Of every group of tokens [G, L], numbers of features [n, d] that are `real` [G, L]: the mean over its tokens of the
    variance of their cosines with the others, their own entry taken as 0; 0 where there is one or none [G]."""
    tokens = unit(features)[groups] * real[..., None]
    sizes = real.sum(1)[:, None]
    others, found, start = (sizes - 1).clamp(min=1), [], 0
    for part in tokens.split(max(1, ELEMENTS // groups.numel()), 1):
        alike = part @ tokens.mT
        alike.diagonal(start, 1, 2).fill_(0)
        mean = alike.sum(2, keepdim=True) / others[..., None]
        squares = (alike - mean).square().masked_fill(~real[:, None], 0).sum(2) / others
        found.append(squares * real[:, start : start + part.shape[1]])
        start += part.shape[1]
    return (torch.cat(found, 1).sum(1) / sizes[:, 0].clamp(min=1)).where(sizes[:, 0] > 1, 0)


def neighbours(vectors: Tensor, rows: Tensor, count: int, there: Tensor | None = None) -> Tensor:
    """The `count` other unit vectors [.., n, c] most similar to each of those numbered `rows` [.., R]; ascending [.., R, count].

    Ties go to the lower number; `count` < n. Only those are looked at that are `there` [.., n], and where these are too few,
    numbers of others fill up.
    """
    found, each = [], vectors.shape[:-1].numel()
    for block in rows.split(max(1, ELEMENTS // each), dim=-1):
        own = vectors.gather(-2, block[..., None].expand(*block.shape, vectors.shape[-1]))
        alike = own @ vectors.transpose(-1, -2)
        if there is not None:
            alike = alike.masked_fill(~there[..., None, :], float("-inf"))
        alike.scatter_(-1, block[..., None], float("-inf"))
        last = alike.topk(count).values[..., -1:]
        above, level = alike > last, alike == last
        left = count - above.sum(-1, keepdim=True)
        found.append(numbers_of(above | (level & (level.cumsum(-1, dtype=torch.int32) <= left)), count))
    return torch.cat(found, -2)
