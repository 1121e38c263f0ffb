"""What PruMerge and PruMerge+ share: tokens that stay take in their most similar neighbours."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from effivlm.compression.base import Selection
from effivlm.compression.choose import numbers_of
from effivlm.compression.per_image import Together
from effivlm.compression.pools import Pools, checked, firsts
from effivlm.compression.similar import neighbours, unit
from effivlm.seams.hooks import Tower


@dataclass(frozen=True, kw_only=True)
class Merging(Together):
    """Chosen tokens become themselves plus the attention-weighted sum of their `neighbours`; one more token sums the dropped.

    neighbours: how many most similar other tokens, kept or dropped, a token takes in; extra: whether the K-th token is that
    of the dropped ones; normalise: whether weights are divided by their sum.
    """

    looks: ClassVar[bool] = True

    neighbours: int = 32
    extra: bool = True
    normalise: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.neighbours < 0:
            raise ValueError(f"neighbours {self.neighbours} is negative; 0 merges nothing")

    @abstractmethod
    def chosen(self, scores: Tensor, sizes: Sequence[int], counts: Sequence[int]) -> Tensor:
        """A mask [T, N] of counts[t] tokens of each pool of sizes[t], by their scores [T, N], -inf where there is none."""

    def choose_all(self, pools: Pools, budgets: Sequence[int]) -> Selection:
        tower, features = checked(pools.tokens.tower), pools.tokens.features.float()
        more = [int(self.extra and budget < size) for budget, size in zip(budgets, pools.sizes, strict=True)]
        few = [budget - extra for budget, extra in zip(budgets, more, strict=True)]
        kept = self.chosen(pools.padded(tower.single, -torch.inf), pools.sizes, few)
        places = numbers_of(kept, max(few))
        numbers, made = pools.taken(places, few), self._taking(pools, tower, features, places, few)
        if any(more):
            dropped = pools.there & ~kept
            last = dropped.cumsum(1).argmax(1, keepdim=True)
            weights = self._weights(pools.padded(tower.single, 0).float() * dropped)
            sums = embedding_bag(pools.numbers, features, per_sample_weights=weights, mode="sum")
            numbers = torch.cat([numbers, pools.taken(last, more)])
            made = torch.cat([made, firsts(sums[:, None], more)])
        return Selection(numbers, made.to(pools.tokens.features))

    def _taking(self, pools: Pools, tower: Tower, features: Tensor, places: Tensor, counts: Sequence[int]) -> Tensor:
        """Features [sum of counts, d] of the tokens at `places` [T, K] after their neighbours were taken in."""
        own, count = features[pools.taken(places, counts)], min(self.neighbours, pools.width - 1)
        if not count or not len(own):
            return own
        keys, there = unit(tower.keys.flatten(1))[pools.numbers], pools.there
        near = neighbours(keys, places, count, there)
        flat = near.flatten(1)
        real = there.gather(1, flat).view_as(near) & (near != places[..., None])
        rows = pools.numbers.gather(1, flat).view_as(near)
        weights = self._weights(tower.single[rows].float() * real)
        sums = embedding_bag(firsts(rows, counts), features, per_sample_weights=firsts(weights, counts), mode="sum")
        return own + sums

    def _weights(self, scores: Tensor) -> Tensor:
        """Weights along the last dimension; those of no attention at all stay zero."""
        return scores / scores.sum(-1, keepdim=True).clamp(min=1e-30) if self.normalise else scores
