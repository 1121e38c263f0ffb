"""VisionZip: the tokens that the vision tower attends, and means of the rest."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from effivlm.compression.base import Selection
from effivlm.compression.choose import numbers_of
from effivlm.compression.per_image import Together
from effivlm.compression.pools import Pools, checked, marked, mask_of
from effivlm.compression.similar import closest_of_each, unit


@dataclass(frozen=True, kw_only=True)
class VisionZip(Together):
    """Keep dominant tokens by attention in the vision tower, and merge the rest into contextual ones (arXiv 2412.04467).

    Of the K tokens of a tile or frame a share `context` is contextual: evenly spaced ones of the rest are centres, every other
    token joins the centre whose key (mean over heads) is most similar, and a centre becomes itself plus the mean of those that
    joined. Preset joint lets all tiles of an image compete for one K.

    Differs from the paper:
    - K follows from keep, rounded half up over the sample and shared out evenly to the tiles and frames of an image, where the
      authors give the two counts of each;
    - where the tower has no class token, the score is the attention a token gets from all tokens of its tile or frame;
    - the class token itself is not emitted, so K counts tokens of the picture alone;
    - tokens are chosen and merged after the projector, scores and keys brought there as features are: what was padding is
      gone before, not after;
    - on Qwen2-VL keys are seen after their rotary embedding;
    - kept tokens stand in the order of the picture, a contextual one at its centre's place, not behind the dominant ones;
    - preset effivlm rounds the contextual share down, at least 1 (EffiVLM-Bench, arXiv 2506.00479); that it rounds K down,
      its second last layer, its scores before the softmax on InternVL, its one pool for all frames of a video on Qwen2-VL and
      its kept newlines are not reproduced, K stays exact.
    """

    looks: ClassVar[bool] = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {},
        "effivlm": {"rounding": "down"},
        "joint": {"scope": "image"},
    }

    context: float = 0.15625
    rounding: str = "half_up"
    centre: str = "stride"
    merge: str = "add_mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.context <= 1:
            raise ValueError(f"context {self.context} is not a share of the kept tokens: it must lie in [0, 1]")
        for name, allowed in (
            ("rounding", ("half_up", "down")),
            ("centre", ("stride", "linspace")),
            ("merge", ("add_mean", "mean")),
        ):
            if (value := getattr(self, name)) not in allowed:
                raise ValueError(f"{name} {value!r} is neither {allowed[0]!r} nor {allowed[1]!r}")

    def contextual(self, budget: int) -> int:
        """How many of `budget` tokens are contextual."""
        share = Fraction(str(self.context)) * budget
        if self.rounding == "half_up":
            return math.floor(share + Fraction(1, 2))
        return min(budget - 1, max(1, math.floor(share)))

    def choose_all(self, pools: Pools, budgets: Sequence[int]) -> Selection:
        tower, features = checked(pools.tokens.tower), pools.tokens.features
        counts = [self.contextual(budget) for budget in budgets]
        few = [budget - count for budget, count in zip(budgets, counts, strict=True)]
        dominant = marked(pools.padded(tower.received, -torch.inf), few)
        first = pools.taken(numbers_of(dominant, max(few)), few)
        if not any(counts):
            return Selection(first)
        centres = self._centres(pools, ~dominant & pools.there, few, counts)
        joining = sum(size - budget for size, budget, count in zip(pools.sizes, budgets, counts, strict=True) if count)
        more = self._merged(pools, tower.keys, dominant, centres, counts, joining)
        kept = torch.cat([first, pools.taken(centres, counts)])
        return Selection(kept, torch.cat([features[first], more.to(features)]))

    def _centres(self, pools: Pools, rest: Tensor, few: Sequence[int], counts: Sequence[int]) -> Tensor:
        """Places [T, C] in their pools of counts[t] centres, evenly spread over the `rest` [T, N]."""
        left = [size - dominant for size, dominant in zip(pools.sizes, few, strict=True)]
        sizes, parts = pools.tensor(left)[:, None], pools.tensor(counts)[:, None].clamp(min=1)
        steps = torch.arange(max(counts), device=rest.device)
        spread = steps * (sizes // parts) if self.centre == "stride" else steps * sizes // parts
        return numbers_of(rest, max(left)).gather(1, spread.where(pools.below(counts, max(counts)), 0))

    def _merged(
        self, pools: Pools, keys: Tensor, dominant: Tensor, centres: Tensor, counts: Sequence[int], joining: int
    ) -> Tensor:
        """The centres' features [sum of counts, d] in float32 after the `joining` others of their pools have joined one."""
        features = pools.tokens.features.float()
        own = features[pools.taken(centres, counts)]
        if not joining:
            return own
        real, total, width = pools.below(counts, centres.shape[1]), sum(counts), pools.width
        free = pools.there & real[:, :1] & ~dominant & ~mask_of(centres.where(real, width), width)
        metric = unit(keys.float().mean(1))[pools.numbers]
        group = closest_of_each(metric, metric.gather(1, centres[..., None].expand(-1, -1, metric.shape[-1])), real)
        starts = pools.tensor(list(accumulate(counts, initial=0))[:-1])[:, None]
        bags = (group + starts).where(free, total).flatten()
        order = pools.numbers.flatten()[bags.argsort(stable=True)[:joining]]
        sizes = torch.zeros(total + 1, dtype=torch.long, device=bags.device).scatter_add_(
            0, bags, torch.ones_like(bags)
        )
        # bags are summed in one order on every device, which an atomic add is not
        sums = embedding_bag(order, features, (sizes.cumsum(0) - sizes)[:-1], mode="sum")
        sizes = sizes[:-1, None]
        return (own + sums) / (1 + sizes) if self.merge == "mean" else own + sums / sizes.clamp(min=1)
