"""What PruMerge and PruMerge+ share: tokens that stay take in their most similar neighbours."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from effivlm.compression.base import Selection
from effivlm.compression.per_image import PerTile, Seen, others
from effivlm.compression.similar import neighbours, unit


@dataclass(frozen=True, kw_only=True)
class Merging(PerTile):
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
    def chosen(self, scores: Tensor, count: int) -> Tensor:
        """Numbers of `count` tokens by their scores [n], ascending."""

    def choose(self, seen: Seen, budget: int) -> Selection:
        tower, length = seen.shown, len(seen.features)
        extra = self.extra and budget < length
        kept = self.chosen(tower.single, budget - extra)
        features = self._taking(seen.features, tower.single, tower.keys, kept)
        if not extra:
            return Selection(kept, features)
        dropped = others(kept, length)
        weights = torch.zeros_like(tower.single).scatter(0, dropped, self._weights(tower.single[dropped]))
        more = weights[None] @ seen.features.float()
        order = torch.cat([kept, dropped[-1:]]).sort()
        return Selection(order.values, torch.cat([features, more.to(features)])[order.indices])

    def _taking(self, features: Tensor, scores: Tensor, keys: Tensor, kept: Tensor) -> Tensor:
        """Features [len(kept), d] after the neighbours were taken in."""
        count = min(self.neighbours, len(features) - 1)
        if not count or not len(kept):
            return features[kept]
        near = neighbours(unit(keys.flatten(1)), kept, count)
        weights = self._weights(scores[near]).float()
        sums = embedding_bag(near, features.float(), per_sample_weights=weights, mode="sum")
        return (features[kept].float() + sums).to(features)

    def _weights(self, scores: Tensor) -> Tensor:
        """Weights along the last dimension; those of no attention at all stay zero."""
        return scores / scores.sum(-1, keepdim=True).clamp(min=1e-30) if self.normalise else scores
