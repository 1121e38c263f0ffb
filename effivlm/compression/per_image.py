"""Visual methods that choose tokens of every image by itself, or of every tile and frame."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from effivlm.compression.base import ImageView, Selection, VisualPart
from effivlm.compression.budget import apportion
from effivlm.compression.places import blocks_of
from effivlm.seams.hooks import Tower

SCOPES = ("tile", "image")


@dataclass(frozen=True, slots=True)
class Seen:
    """The n tokens that compete with each other, all of an image or of one tile or frame: features [n, d], what the tower
    showed of them, and what the method found of each when it saw the whole image [n]."""

    features: Tensor
    tower: Tower | None
    found: Tensor | None = None

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
        """`budget` of the n tokens of one pool, numbered 0 .. n-1; 0 < budget <= n."""

    def pools(self, view: ImageView) -> list[Tensor]:
        """Numbers of the tokens that compete with each other, ascending in each pool: all that show a part of the image."""
        return [view.real]

    def whole(self, view: ImageView) -> Tensor | None:
        """A number for every token of an image [n] that only the whole image tells, for `choose` to see."""
        return None

    def select(self, views: Sequence[ImageView], sample_id: str) -> list[Selection]:
        return [self._of(view, share) for view, share in zip(views, self.shares(views), strict=True)]

    def _of(self, view: ImageView, share: int) -> Selection:
        if not share:
            return Selection(view.real[:0])
        pools = self.pools(view)
        budgets = apportion([1] * len(pools), share, int(share >= len(pools)), [len(pool) for pool in pools])
        whole = self.whole(view)
        found = [self._of_pool(view, whole, *one) for one in zip(pools, budgets, strict=True) if one[1]]
        kept, order = torch.cat([one.kept for one in found]).sort()
        if all(one.features is None for one in found):
            return Selection(kept)
        made = [view.features[one.kept] if one.features is None else one.features for one in found]
        return Selection(kept, torch.cat(made)[order])

    def _of_pool(self, view: ImageView, whole: Tensor | None, pool: Tensor, budget: int) -> Selection:
        tower = view.tower and Tower(view.tower.received[pool], view.tower.single[pool], view.tower.keys[pool])
        chosen = self.choose(Seen(view.features[pool], tower, None if whole is None else whole[pool]), budget)
        return Selection(pool[chosen.kept], chosen.features)


@dataclass(frozen=True, kw_only=True)
class PerTile(PerImage):
    """With `scope` "tile", tokens are chosen and merged inside every tile or frame by itself, as in the authors' code.

    All tiles and frames of an image keep equally many, the earlier ones one more where that does not come out even; one that has
    fewer (padding was cut off it) keeps what it has, and the others more. With "image", all of an image compete in one pool.
    """

    scope: str = "tile"

    def __post_init__(self) -> None:
        if self.scope not in SCOPES:
            raise ValueError(f"scope {self.scope!r} is neither {SCOPES[0]!r} nor {SCOPES[1]!r}")

    def pools(self, view: ImageView) -> list[Tensor]:
        return blocks_of(view.places) if self.scope == "tile" else super().pools(view)


def others(numbers: Tensor, count: int) -> Tensor:
    """Those of 0 .. count-1 that are not among `numbers`, ascending."""
    mask = torch.ones(count, dtype=torch.bool, device=numbers.device)
    mask[numbers] = False
    return mask.nonzero()[:, 0]
