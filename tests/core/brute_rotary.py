"""Rotary embedding with a base of 10000 written out, and what is expected of queries to come, in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from effivlm.compression.base import LayerView
from effivlm.seams.angles import Angles, moments


def angles(positions: Sequence[int], dim: int) -> Angles:
    """The plain rotary embedding of these positions, with a base of 10000."""
    turns = torch.tensor(positions)[:, None] * 1e4 ** (-torch.arange(0, dim, 2) / dim)
    return Angles(turns.cos().repeat(1, 2), turns.sin().repeat(1, 2))


def turning(shown: LayerView, start: int | None) -> dict[str, Any]:
    """What a view holds of rotary embedding, where its queries are all rows of the prompt: fields by name."""
    dim, length = shown.keys.shape[-1], shown.length
    counted = {} if start is None else {start: moments(shown.queries[:, start:], angles(range(start, length), dim))}
    return {"moments": counted, "following": lambda count: angles(range(length, length + count), dim)}


def expected64(shown: LayerView) -> list[list[float]]:
    """m.k / sqrt(D) + k.S.k / 2D through a softmax without the first four, times the length of the value; m and S are those of
    queries that stood at position 0, turned by the mean of the next 512 rotations."""
    kv_heads, group = len(shown.keys), len(shown.queries) // len(shown.keys)
    queries, keys, values = shown.queries.double(), shown.keys.double(), shown.values.double()
    first, dim = min(4, shown.length - 1), queries.shape[-1]
    counted = torch.stack([queries[:, row] @ rotation(row, dim) for row in range(first, shown.length)], 1)
    ahead = torch.stack([rotation(row, dim) for row in range(shown.length, shown.length + 512)]).mean(0)
    result = []
    for kv in range(kv_heads):
        weights = []
        for head in range(kv * group, (kv + 1) * group):
            mean = ahead @ counted[head].mean(0)
            spread = ahead @ torch.cov(counted[head].T, correction=0).reshape(dim, dim) @ ahead.T
            expected = [float(mean @ key / dim**0.5 + key @ spread @ key / (2 * dim)) for key in keys[kv]]
            weights.append([0.0] * min(4, shown.length) + torch.tensor(expected[4:]).double().softmax(-1).tolist())
        lengths = values[kv].norm(dim=-1).tolist()
        row = [sum(at) / group * size for at, size in zip(zip(*weights, strict=True), lengths, strict=True)]
        result.append([1e9] * min(4, shown.length) + row[4:])
    return result


def rotation(position: int, dim: int) -> torch.Tensor:
    """What a column is turned by at a position [D, D]; a row is turned back by it."""
    turn = torch.zeros(dim, dim, dtype=torch.float64)
    for pair in range(dim // 2):
        angle, other = position * 1e4 ** (-2 * pair / dim), pair + dim // 2
        turn[pair, pair] = turn[other, other] = math.cos(angle)
        turn[pair, other], turn[other, pair] = -math.sin(angle), math.sin(angle)
    return turn
