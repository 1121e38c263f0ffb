"""FastVID: salient tokens of every frame, and what is left of a segment merged around density peaks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from effivlm.compression.base import Selection
from effivlm.compression.budget import apportion
from effivlm.compression.choose import best, best_of_each
from effivlm.compression.clusters import peaks
from effivlm.compression.frames import Clip, PerClip
from effivlm.compression.similar import closest, unit

NEAR = 4


@dataclass(frozen=True, kw_only=True)
class FastVid(PerClip):
    """Keep the most attended tokens of every frame, and merge a segment's others around anchors (arXiv 2503.11187).

    A video is cut at its `cuts` lowest cosines of neighbouring frames and wherever that is under `similar`. Of a frame's tokens a
    share 1 - `context` is salient. The anchors of a segment are the density peaks of the other tokens in every `step`-th frame,
    the last one first; every other token of the segment joins the most similar anchor of each such frame, and an anchor with n
    of them, itself included, becomes w of itself plus 1 - w of their mean, w = max(1 / (n + 1), `least`).

    Differs from the paper:
    - frames are compared by their mean projected feature, and a token's attention is what it gets in the layer that feeds the
      projector: nothing here has SigLIP's pooling head, which gives both in the authors' code;
    - K is rounded half up over the sample and exact: frames get equally many, the earlier one more; what anchor frames cannot
      hold goes to the segment's other frames as anchors of their own (the authors' code fails there);
    - a video of few frames is cut at all of them at most; a still picture is a segment of one frame;
    - of equally dense tokens the earlier counts as the denser (the authors' code draws).
    """

    looks: ClassVar[bool] = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {}}

    cuts: int = 7
    similar: float = 0.9
    context: float = 0.4
    step: int = 4
    least: float = 0.6

    def __post_init__(self) -> None:
        if self.cuts < 0 or self.step < 1:
            raise ValueError(f"cuts {self.cuts} must be 0 or more, step {self.step} 1 or more")
        for name in ("context", "least"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise ValueError(f"{name} {value} is not a share: it must lie in [0, 1]")

    def choose(self, clip: Clip, budget: int) -> Selection:
        frames, size, _ = clip.features.shape
        each = apportion([1] * frames, budget, high=size)
        wanted = [int(Fraction(str(self.context)) * count) for count in each]
        salient = best_of_each(clip.attention.float(), [all_ - few for all_, few in zip(each, wanted, strict=True)])
        free = torch.ones(frames, size, dtype=torch.bool, device=clip.features.device)
        for frame, numbers in enumerate(salient):
            free[frame, numbers] = False
        kept = [(numbers + frame * size, clip.features[frame, numbers]) for frame, numbers in enumerate(salient)]
        start = 0
        for length in self.segments(clip.features):
            part = slice(start, start + length)
            kept += self._merged(clip.features[part], free[part], self.anchors(wanted[part], each[part], size), start)
            start += length
        numbers, order = torch.cat([one for one, _ in kept]).sort()
        return Selection(numbers, torch.cat([made for _, made in kept])[order])

    def segments(self, features: Tensor) -> list[int]:
        """How many frames each segment has, of features [T, n, d]."""
        means = unit(features.float().mean(1))
        alike = (means[:-1] * means[1:]).sum(-1)
        cut = alike < self.similar
        cut[best(-alike, min(self.cuts, len(alike)))] = True
        ends = [*(cut.nonzero()[:, 0] + 1).tolist(), len(means)]
        return [end - start for start, end in zip([0, *ends], ends, strict=False)]

    def anchors(self, wanted: list[int], each: list[int], size: int) -> list[int]:
        """How many anchors each frame of a segment has."""
        room = [size - all_ + few for all_, few in zip(each, wanted, strict=True)]
        turns = [int(number % self.step == 0) for number in reversed(range(len(wanted)))]
        return apportion(turns, sum(wanted), high=room)

    def _merged(self, features: Tensor, free: Tensor, counts: list[int], start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Numbers and features of the anchors of every frame of a segment [T, n, d], of whose tokens some are `free` [T, n]."""
        size, rest = features.shape[1], features[free].float()
        for frame, count in enumerate(counts):
            if count:
                numbers = free[frame].nonzero()[:, 0]
                centres = numbers[best(peaks(features[frame, numbers], NEAR), count)]
                own = features[frame, centres].float()
                order, sizes = joined_by(closest(unit(rest), unit(own))[1], count)
                # bags are summed in one order on every device, which an atomic add is not
                sums = embedding_bag(order, rest, sizes.cumsum(0) - sizes, mode="sum")
                sizes = sizes[:, None]
                weight = (1 / (sizes + 1)).clamp(min=self.least)
                made = weight * own + (1 - weight) * sums / sizes.clamp(min=1)
                yield centres + (start + frame) * size, made.to(features)


def joined_by(anchors: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Tokens in the order of the anchors [N] they join, each in 0 .. count-1, and how many join each [count]."""
    return anchors.argsort(stable=True), torch.bincount(anchors, minlength=count)
