"""VidCom2: tokens unlike the rest of their video and of their frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from effivlm.compression.base import Selection
from effivlm.compression.budget import apportion
from effivlm.compression.choose import best, best_of_each
from effivlm.compression.frames import Clip, PerClip
from effivlm.compression.similar import unit

WIDTHS = tuple(2.0**power for power in range(-3, 2))


@dataclass(frozen=True, kw_only=True)
class VidCom2(PerClip):
    """Give unusual frames more tokens, and keep those unlike the centres of video and frame (arXiv 2505.14454, EMNLP 2025).

    Tokens are the half of their channels that varies least, at length one. Likeness to a centre is the sum of Gaussians of five
    widths; a frame's share is 1 + p - mean of p, p the softmax over frames of its mean unlikeness to the video's centre, over
    `temperature`. In every frame the tokens least like both centres stay. A still picture is one frame: its centres are one.

    Differs from the paper: frames get whole numbers by largest remainder, so that they sum to K; the authors' code rounds each.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {}}

    channels: float = 0.5
    temperature: float = 0.01

    def __post_init__(self) -> None:
        if not 0 < self.channels <= 1:
            raise ValueError(f"channels {self.channels} is not a share of the channels: it must lie in (0, 1]")
        if self.temperature <= 0:
            raise ValueError(f"temperature {self.temperature} must be more than 0")

    def choose(self, clip: Clip, budget: int) -> Selection:
        frames, size, width = clip.features.shape
        flat = clip.features.flatten(0, 1).float()
        few = best(-flat.var(0, unbiased=False), max(1, int(width * self.channels)))
        tokens = unit(flat[:, few]).unflatten(0, (frames, size))
        video = likeness(tokens, tokens.mean((0, 1)))
        scores = video + likeness(tokens, tokens.mean(1, keepdim=True))
        counts = self.counts(video.mean(1), size, budget)
        rows = best_of_each(-scores, counts)
        return Selection(torch.cat([row + number * size for number, row in enumerate(rows)]))

    def counts(self, usual: Tensor, size: int, budget: int) -> list[int]:
        """How many tokens each frame keeps by its mean likeness [T] to the video; no frame keeps more than its `size`."""
        weights = 1 + (-usual / self.temperature).softmax(0) - 1 / len(usual)
        return apportion(weights.tolist(), budget, int(budget >= len(usual)), size)


def likeness(tokens: Tensor, centre: Tensor) -> Tensor:
    """The sum of Gaussians of squared distances [T, n] of tokens [T, n, c] from a centre."""
    squares = (tokens - centre).square().sum(-1)
    return torch.stack([(squares / (-2 * width)).exp() for width in WIDTHS]).sum(0)
