"""VisPruner: tokens that the vision tower attends, and a varied remainder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

import torch
from torch import Tensor

from effivlm.compression.base import Selection
from effivlm.compression.choose import best
from effivlm.compression.per_image import PerTile, Seen
from effivlm.compression.pools import Pools, checked, fused, one_program, parts_of
from effivlm.compression.similar import alike, closest, unit

WIDEST = 2048
"""Tokens of a pool up to which one program of the kernel is faster than a round of operations on all of a GPU."""


@dataclass(frozen=True, kw_only=True)
class VisPruner(PerTile):
    """Keep the tokens most attended in the vision tower, and of the others a set without likenesses (arXiv 2412.01818).

    A share `important` of the K tokens of a tile or frame is kept by attention. The others, by falling attention, are dealt in
    turn to two halves, and the `step` tokens of the first half most similar to one of the second are dropped; until K are left.
    Preset joint lets all tiles of an image compete for one K.

    Differs from the paper:
    - K follows from keep, rounded half up over the sample and shared out evenly to the tiles and frames of an image, where the
      authors give the count of each;
    - where the tower has no class token, the score is the attention a token gets from all tokens of its tile or frame;
    - similarity is that of projected features, which the decoder gets, not of the tower's own; what was padding is gone before;
    - an odd number of tokens is dealt with one more in the first half (the paper's code fails);
    - where dropping `step` a round would take more than `rounds` rounds, each drops more, at most its first half (no tile of
      the paper is that large).
    """

    looks: ClassVar[bool] = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {}, "joint": {"scope": "image"}}

    important: float = 0.5
    step: int = 8
    rounds: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.important <= 1:
            raise ValueError(f"important {self.important} is not a share of the kept tokens: it must lie in [0, 1]")
        for name in ("step", "rounds"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name} {value} must be 1 or more")

    def choose(self, seen: Seen, budget: int) -> Selection:
        scores = seen.shown.received
        first = best(scores, self.first(budget))
        order = scores.sort(descending=True, stable=True).indices[len(first) :]
        spread = self._varied(seen.features, order, budget - len(first))
        return Selection(torch.cat([first, spread]).sort().values)

    def choose_all(self, pools: Pools, budgets: Sequence[int]) -> Selection:
        if not fused(pools) or pools.width > WIDEST:
            return super().choose_all(pools, budgets)
        scores, tokens = checked(pools.tokens.tower).received, unit(pools.tokens.features)
        parts = [
            part.taken(self._of(part, scores, tokens, counts), counts) for part, counts in parts_of(pools, budgets)
        ]
        return Selection(torch.cat(parts))

    def _of(self, pools: Pools, scores: Tensor, tokens: Tensor, counts: Sequence[int]) -> Tensor:
        """Places [T, K] of what stays of each pool, found in one kernel."""
        from effivlm.kernels import greedy

        own = tokens[pools.numbers]
        cosines = (own @ own.mT).nan_to_num_(nan=-1)  # numbers that stand for places have to be places
        order = pools.padded(scores, -torch.inf).argsort(dim=1, descending=True, stable=True)
        few = [self.first(count) for count in counts]
        left = [count - first for count, first in zip(counts, few, strict=True)]
        steps = [self.steps(size - first, count) for size, first, count in zip(pools.sizes, few, left, strict=True)]
        facts = torch.tensor([pools.sizes, few, left, steps], dtype=torch.int32).T.contiguous()
        return greedy.varied(cosines, order, facts.to(order.device, non_blocking=True), max(counts))

    def first(self, budget: int) -> int:
        """How many of `budget` tokens are kept by attention."""
        return math.floor(Fraction(str(self.important)) * budget)

    def steps(self, length: int, count: int) -> int:
        """How many of `length` tokens leave at once until `count` are left."""
        return max(self.step, math.ceil((length - count) / self.rounds))

    def _varied(self, features: Tensor, order: Tensor, count: int) -> Tensor:
        """`count` of the tokens numbered `order` by falling attention; what resembles another is dropped round by round."""
        if not count:
            return order[:0]
        step, tokens = self.steps(len(order), count), unit(features)
        known = alike(tokens) if one_program(tokens) else None  # of all pairs at once, and not anew in every round
        while len(order) > count:
            one, other = order[::2], order[1::2]
            highest = closest(tokens[one], tokens[other])[0] if known is None else known[one[:, None], other].amax(1)
            falling = highest.sort(descending=True, stable=True).indices
            order = torch.cat([one[falling[min(step, len(order) - count) :]], other])
        return order
