"""PruMerge+: outliers of attention, and tokens sampled evenly over the picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from effivlm.compression.choose import ranks
from effivlm.compression.pools import mask_of
from effivlm.compression.prumerge import Merging


@dataclass(frozen=True, kw_only=True)
class PruMergePlus(Merging):
    """PruMerge+ (arXiv 2403.15388): keep outliers of attention and evenly spaced other tokens; merge neighbours into them.

    Outliers lie above the third quartile of a tile or frame by 1.5 interquartile ranges; where there are more than its K, the
    highest stay. Merging, the extra token and preset joint are those of `prumerge_plain`.

    Differs from the paper:
    - K is given, where the paper takes about four times as many tokens as there are outliers;
    - samples are the middles of equal parts of what is no outlier, where the paper steps from the first token in steps
      that follow from the number of outliers;
    - tiles and frames are each treated as the one picture that the paper's code can take;
    - all that `prumerge_plain` lists of K, scores, keys, merging and order;
    - preset effivlm (arXiv 2506.00479) steps from the first token in steps of V / K and stops at K, so that the end of
      the picture may go unsampled, and has no extra token; that code counts outliers as their mean over tiles, at least one,
      and what `prumerge_plain` lists of it is not reproduced either: on Qwen2-VL it scores head by head where one head over
      the whole width does so here, and it rounds K down.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {},
        "effivlm": {"extra": False, "spatial": "front_stride"},
        "joint": {"scope": "image"},
    }

    spatial: str = "midquantile"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.spatial not in ("midquantile", "front_stride"):
            raise ValueError(f"spatial {self.spatial!r} is neither 'midquantile' nor 'front_stride'")

    def chosen(self, scores: Tensor, sizes: Sequence[int], counts: Sequence[int]) -> Tensor:
        width, most = scores.shape[1], max(counts)
        facts = torch.tensor([sizes, counts]).to(scores.device, non_blocking=True)[..., None]
        size, count = facts[0], facts[1]
        first = ranks(scores) < outliers(scores)[:, None].minimum(count)
        rest = ~first & (scores > -torch.inf)
        left, steps = count - first.sum(1, keepdim=True), torch.arange(most, device=scores.device)
        if self.spatial == "front_stride":
            even = rest & (torch.arange(width, device=scores.device) % (size // count.clamp(min=1)) == 0)
            return first | (even & (even.cumsum(1) <= left))
        middles = (2 * steps + 1) * (size - count + left) // (2 * left).clamp(min=1)
        spread = mask_of(middles.where(steps < left, width), width).gather(1, (rest.cumsum(1) - 1).clamp(min=0))
        return first | (rest & spread)


def outliers(scores: Tensor) -> Tensor:
    """How many of the finite scores [.., N] lie above their third quartile by more than 1.5 interquartile ranges."""
    real = scores.masked_fill(scores == -torch.inf, torch.nan)
    low, high = (real.nanquantile(share, -1, keepdim=True) for share in (0.25, 0.75))
    far: Tensor = scores > high + 1.5 * (high - low)
    return far.sum(-1)
