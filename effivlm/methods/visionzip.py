"""VisionZip: the tokens that the vision tower attends, and means of the rest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from effivlm.compression.base import Selection
from effivlm.compression.choose import best
from effivlm.compression.per_image import PerTile, Seen, others
from effivlm.compression.similar import closest, unit


@dataclass(frozen=True, kw_only=True)
class VisionZip(PerTile):
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

    def choose(self, seen: Seen, budget: int) -> Selection:
        tower, count = seen.shown, self.contextual(budget)
        dominant = best(tower.received, budget - count)
        if not count:
            return Selection(dominant)
        rest = others(dominant, len(seen.features))
        centres = rest[self._spread(len(rest), count, rest.device)]
        kept = torch.cat([dominant, centres]).sort().values
        features = seen.features[kept]
        features[torch.searchsorted(kept, centres)] = self._merged(seen.features, tower.keys, centres, kept).to(
            features
        )
        return Selection(kept, features)

    def _spread(self, length: int, count: int, device: torch.device) -> Tensor:
        """Places of the centres among `length` tokens."""
        numbers = torch.arange(count, device=device)
        return numbers * (length // count) if self.centre == "stride" else numbers * length // count

    def _merged(self, features: Tensor, keys: Tensor, centres: Tensor, kept: Tensor) -> Tensor:
        """The centres' features [K_c, d] in float32 after every token that is not kept has joined one."""
        joining, own = others(kept, len(features)), features[centres].float()
        if not len(joining):
            return own
        metric = unit(keys.float().mean(1))
        group, order = closest(metric[joining], metric[centres])[1].sort(stable=True)
        counts = torch.bincount(group, minlength=len(centres))
        # bags are summed in one order on every device, which an atomic add is not
        sums = embedding_bag(joining[order], features.float(), counts.cumsum(0) - counts, mode="sum")
        if self.merge == "mean":
            return (own + sums) / (1 + counts[:, None])
        return own + sums / counts[:, None].clamp(min=1)
