"""EVS: tokens of a video that changed since the frame before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from effivlm.compression.base import Selection
from effivlm.compression.choose import best
from effivlm.compression.frames import Clip, PerClip
from effivlm.compression.similar import unit

SAME = 1 - 1e-6
"""Cosines above this are rounding; such tokens did not change."""


@dataclass(frozen=True, kw_only=True)
class Evs(PerClip):
    """Efficient video sampling: keep the first frame and the tokens least like the one at their place before (arXiv 2510.14624).

    Dissimilarity is one minus the cosine of projected features; the K highest of the whole video stay, at their positions.

    Differs from the paper:
    - K is rounded half up over the sample and exact, so that the floor of one frame does not hold: of the first frame, or of a
      still picture, K tokens stay that lie evenly over it where it does not fit whole;
    - cosines above 1 - 1e-6 count as equal, so that what stands still is ordered by place.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {}}

    def choose(self, clip: Clip, budget: int) -> Selection:
        size, tokens = clip.features.shape[1], unit(clip.features)
        if budget < size:
            return Selection(evenly(size, budget, tokens.device))
        alike = (tokens[1:] * tokens[:-1]).sum(-1).clamp(max=SAME)
        scores = torch.cat([alike.new_full((1, size), torch.inf), 1 - alike])
        return Selection(best(scores.flatten(), budget))


def evenly(length: int, count: int, device: torch.device) -> Tensor:
    """The middles of `count` equal parts of 0 .. length-1."""
    return (2 * torch.arange(count, device=device) + 1) * length // (2 * count)
