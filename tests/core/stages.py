"""Drawn stages of a prefill, and choices written out in float64."""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from hypothesis import strategies as st
from torch import Tensor

from effivlm.compression.base import LayerView, Stage
from effivlm.records import Budget

KEEPS = st.fractions(min_value=Fraction(1, 100), max_value=Fraction(99, 100), max_denominator=100).map(Budget)
SAME = 1e-5  # scores that near are equal to float32


def stage(seed: int, length: int, *, rows: int | None = None, number: int = 0, hollow: bool = False) -> Stage:
    """A drawn stage of a prompt that begins and ends with text; `hollow`: a few entries have left already."""
    rng = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=rng) * 2  # noqa: E731
    whole = length + (3 if hollow else 0)
    marks = torch.rand(whole, generator=rng) < 0.6
    marks[[0, -1]] = False
    marks[1 : 5 if hollow else 2] = True
    there = torch.tensor([0, 1, *range(5, whole)]) if hollow else None
    visual = marks if there is None else marks[there]
    view = LayerView(
        draw(4, length, 8)[:, length - (rows or length) :], draw(2, length, 8), draw(2, length, 8), visual, 1
    )
    ahead = LayerView(draw(4, length, 8), draw(2, length, 8), draw(2, length, 8), visual, 2)
    hidden, embeds, weights = draw(length, 6), draw(whole, 6), draw(6)
    turns = torch.arange(whole)[:, None] * torch.tensor([1.0, 0.3, 0.1, 0.03] * 2)
    turns = turns if there is None else turns[there]
    angles = (turns.cos(), turns.sin())
    return Stage(number, 2, view, hidden, embeds, marks, lambda: ahead, lambda: hidden * weights, angles, there)


def softmax_row(view: LayerView, row: int) -> list[Tensor]:
    """Attention of one row, head by head, over what stands before it and itself, in float64."""
    queries, keys = view.queries.double(), view.keys.double()
    heads, held, dim = queries.shape
    found = []
    for head in range(heads):
        key = keys[head * len(keys) // heads, : row + 1]
        found.append(torch.softmax(key @ queries[head, row - (view.length - held)] / math.sqrt(dim), -1))
    return found


def ranked(scores: dict[int, float], count: int) -> list[int]:
    return sorted(sorted(scores, key=lambda entry: (-scores[entry], entry))[:count])


def alike(ours: list[int], expected: list[int], scores: dict[int, float]) -> bool:
    """Equal but for entries whose scores float32 cannot tell apart."""
    swapped = [scores[entry] for entry in set(ours) ^ set(expected)]
    return len(ours) == len(expected) and (not swapped or max(swapped) - min(swapped) < SAME * max(1.0, *swapped))
