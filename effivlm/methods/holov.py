"""HoloV: the best attended tokens of every stretch of the picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from effivlm.compression.base import Selection
from effivlm.compression.choose import numbers_of, ranks
from effivlm.compression.per_image import Together
from effivlm.compression.pools import Pools, checked, marked, mask_of
from effivlm.compression.similar import variances

TINY = 1e-6
SCALE = 1e3
"""Attention is multiplied by this in the authors' code, which makes `TINY` small beside it."""


@dataclass(frozen=True, kw_only=True)
class HoloV(Together):
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

    def choose_all(self, pools: Pools, budgets: Sequence[int]) -> Selection:
        attention = pools.padded(checked(pools.tokens.tower).received.float(), -torch.inf)
        places, real = self.cut(pools)
        inside = attention.gather(1, places.flatten(1)).view_as(places).masked_fill(~real, -torch.inf)
        sizes = real.sum(-1)
        mean = inside.masked_fill(~real, 0).sum(-1) / sizes.clamp(min=1) * SCALE
        numbers = pools.numbers.gather(1, places.flatten(1)).view_as(places)
        varied = variances(pools.tokens.features, numbers.flatten(0, 1), real.flatten(0, 1)).view_as(mean)
        weights = mean + self.alpha * varied * mean / (varied + TINY)
        wanted = real & (ranks(inside) < quotas(weights.where(sizes > 0, -torch.inf), pools.tensor(budgets))[..., None])
        first = mask_of(places.where(wanted, pools.width).flatten(1), pools.width)
        chosen = marked(attention.masked_fill(first, torch.inf), budgets)
        return Selection(pools.taken(numbers_of(chosen, max(budgets)), budgets))

    def cut(self, pools: Pools) -> tuple[Tensor, Tensor]:
        """Places [T, P, L] in each pool of the tokens of its stretches, the earlier ones longer where they do not come out even,
        and which of them are real."""
        sizes = pools.tensor(pools.sizes)[:, None]
        parts = sizes.clamp(max=self.stretches)
        number = torch.arange(min(self.stretches, pools.width), device=sizes.device)
        each, longer = sizes // parts, sizes % parts
        start = number * each + number.minimum(longer)
        length = (each + (number < longer)).where(number < parts, 0)
        steps = torch.arange(-(-pools.width // min(self.stretches, pools.width)), device=sizes.device)
        real = steps < length[..., None]
        return (start[..., None] + steps).where(real, 0), real


def quotas(weights: Tensor, budgets: Tensor) -> Tensor:
    """How many tokens of each stretch are asked for [T, P], by weights [T, P], -inf where there is no stretch; together no more
    than the budget of each pool [T]."""
    there = weights.where(weights > -torch.inf, 0)
    floors = (there / (there.sum(-1, keepdim=True) + TINY) * budgets[:, None]).floor()
    return floors + (ranks(weights) < budgets[:, None] - floors.sum(-1, keepdim=True))
