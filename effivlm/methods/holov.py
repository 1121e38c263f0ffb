"""HoloV: the best attended tokens of every stretch of the picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from effivlm.compression.base import Selection
from effivlm.compression.choose import best
from effivlm.compression.per_image import PerTile, Seen
from effivlm.compression.similar import blocks, unit

TINY = 1e-6
SCALE = 1e3
"""Attention is multiplied by this in the authors' code, which makes `TINY` small beside it."""


@dataclass(frozen=True, kw_only=True)
class HoloV(PerTile):
    """Share K among stretches of the picture by attention and variety, and keep the best attended of each (arXiv 2510.02912).

    A tile or frame is cut into `stretches` of consecutive tokens. One's weight is its mean attention plus `alpha` times the
    mean variance of its tokens' cosines, brought to the scale of attention; quotas are rounded down, what is left goes to
    the heaviest, one each. Preset joint lets all tiles of an image compete for one K.

    Differs from the paper:
    - K follows from keep, rounded half up over the sample and shared out evenly to the tiles and frames of an image;
    - where the tower has no class token, the score is the attention a token gets from all tokens of its tile or frame;
    - a stretch of one token is weighed on the scale of the others (the authors' code forgets to);
    - what a quota asks beyond its stretch goes to the best attended of the rest (the authors' code fills up with zeros).
    """

    looks: ClassVar[bool] = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {}, "joint": {"scope": "image"}}

    stretches: int = 16
    alpha: float = 0.09

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stretches < 1 or self.alpha < 0:
            raise ValueError(f"stretches {self.stretches} must be 1 or more, alpha {self.alpha} 0 or more")

    def choose(self, seen: Seen, budget: int) -> Selection:
        attention, count = seen.shown.received.float(), min(self.stretches, len(seen.features))
        parts = attention.tensor_split(count)
        tokens = unit(seen.features).tensor_split(count)
        weights = torch.stack([self.weight(*pair) for pair in zip(tokens, parts, strict=True)])
        wanted = torch.cat([ranks(part) < quota for part, quota in zip(parts, quotas(weights, budget), strict=True)])
        return Selection(best(attention.masked_fill(wanted, torch.inf), budget))

    def weight(self, tokens: Tensor, attention: Tensor) -> Tensor:
        """The weight of a stretch of unit tokens [n, d] with their attention [n]."""
        scaled = attention.mean() * SCALE
        varied = variance(tokens).mean() if len(tokens) > 1 else torch.zeros_like(scaled)
        return scaled + self.alpha * varied * scaled / (varied + TINY)


def variance(tokens: Tensor) -> Tensor:
    """Of every unit token [n, d] the variance of its cosines with the others [n], its own entry taken as 0 as the authors do."""
    found, start = [], 0
    for block in blocks(tokens, len(tokens)):
        alike = block @ tokens.T
        alike[:, start:].fill_diagonal_(0)
        mean = alike.sum(1, keepdim=True) / (len(tokens) - 1)
        found.append((alike - mean).square().sum(1) / (len(tokens) - 1))
        start += len(block)
    return torch.cat(found)


def quotas(weights: Tensor, budget: int) -> Tensor:
    """How many tokens of each stretch are asked for [P], by weights [P]; together no more than `budget`."""
    floors = (weights / (weights.sum() + TINY) * budget).floor()
    return floors + (ranks(weights) < budget - floors.sum())


def ranks(scores: Tensor) -> Tensor:
    """The place of each score [n] in falling order; ties go to the lower number."""
    return scores.argsort(descending=True, stable=True).argsort()
