"""Visual methods that choose tokens of every image by itself."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from effivlm.compression.base import ImageView, Selection, VisualPart
from effivlm.seams.hooks import Tower


@dataclass(frozen=True, slots=True)
class Seen:
    """The n tokens of one image that show a part of it: features [n, d], and what the tower showed of them."""

    features: Tensor
    tower: Tower | None

    @property
    def shown(self) -> Tower:
        """What the tower showed.

        Raises:
            ValueError: nobody looked at the tower, or it showed NaN.
        """
        if self.tower is None:
            raise ValueError(
                "this method needs what the vision tower shows, but the images were encoded without looking"
            )
        if self.tower.received.isnan().any() or self.tower.single.isnan().any():
            raise ValueError("attention in the vision tower holds NaN, so no tokens can be chosen by it")
        return self.tower


@dataclass(frozen=True, kw_only=True)
class PerImage(VisualPart):
    """K of the sample is shared among its images by size; newline markers are never chosen."""

    @abstractmethod
    def choose(self, seen: Seen, budget: int) -> Selection:
        """`budget` of the n tokens of one image, numbered 0 .. n-1; 0 < budget <= n."""

    def select(self, views: Sequence[ImageView], sample_id: str) -> list[Selection]:
        return [self._of(view, share) for view, share in zip(views, self.shares(views), strict=True)]

    def _of(self, view: ImageView, share: int) -> Selection:
        real = view.real
        if not share:
            return Selection(real[:0])
        tower = view.tower and Tower(view.tower.received[real], view.tower.single[real], view.tower.keys[real])
        chosen = self.choose(Seen(view.features[real], tower), share)
        return Selection(real[chosen.kept], chosen.features)


def others(numbers: Tensor, count: int) -> Tensor:
    """Those of 0 .. count-1 that are not among `numbers`, ascending."""
    mask = torch.ones(count, dtype=torch.bool, device=numbers.device)
    mask[numbers] = False
    return mask.nonzero()[:, 0]
