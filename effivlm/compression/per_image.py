"""Visual methods that choose tokens of every image by itself, or of every tile and frame."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from effivlm.compression.base import ImageView, Selection, VisualPart
from effivlm.compression.budget import apportion
from effivlm.compression.places import blocks_of
from effivlm.compression.pools import Pools
from effivlm.compression.pools import Seen as Seen
from effivlm.seams.hooks import Tower

SCOPES = ("tile", "image")


@dataclass(frozen=True, kw_only=True)
class PerImage(VisualPart):
    """K of the sample is shared among its images by size; newline markers are never chosen."""

    @abstractmethod
    def choose(self, seen: Seen, budget: int) -> Selection:
        """`budget` of the n tokens of one pool, numbered 0 .. n-1; 0 < budget <= n."""

    def choose_all(self, pools: Pools, budgets: Sequence[int]) -> Selection:
        """What stays of all pools, in any order, numbered as the tokens of the sample are; pool by pool, unless all are chosen of
        together at less cost."""
        found = [
            (pool[one.kept], seen.features[one.kept] if one.features is None else one.features, one.features is None)
            for (pool, seen), budget in zip(pools.each(), budgets, strict=True)
            for one in [self.choose(seen, budget)]
        ]
        kept = torch.cat([numbers for numbers, _, _ in found])
        same = all(unchanged for _, _, unchanged in found)
        return Selection(kept, None if same else torch.cat([features for _, features, _ in found]))

    def pools(self, view: ImageView) -> list[Tensor]:
        """Numbers of the tokens that compete with each other, ascending in each pool: all that show a part of the image."""
        return [view.real]

    def whole(self, view: ImageView) -> Tensor | None:
        """A number for every token of an image [n] that only the whole image tells, for `choose` to see."""
        return None

    def select(self, views: Sequence[ImageView], sample_id: str) -> list[Selection]:
        shares = self.shares(views)
        starts = list(accumulate((len(view.features) for view in views), initial=0))
        pools: list[Tensor] = []
        budgets: list[int] = []
        for view, share, start in zip(views, shares, starts, strict=False):
            parts = self.pools(view) if share else []
            high = [len(part) for part in parts]
            counts = apportion([1] * len(parts), share, int(share >= len(parts)), high) if share else []
            pools += [part + start if start else part for part, count in zip(parts, counts, strict=True) if count]
            budgets += [count for count in counts if count]
        if not budgets:
            return [Selection(view.real[:0]) for view in views]
        chosen = self.choose_all(Pools.of(self._tokens(views), pools), budgets)
        kept, order = chosen.kept.sort()
        features = None if chosen.features is None else chosen.features[order].split(shares)
        numbers = [part - start for part, start in zip(kept.split(shares), starts, strict=False)]
        return [Selection(part, features and features[at]) for at, part in enumerate(numbers)]

    def _tokens(self, views: Sequence[ImageView]) -> Seen:
        """The tokens of all images as one."""
        found = [part for view in views if (part := self.whole(view)) is not None]
        towers = [view.tower for view in views if view.tower is not None]
        parts = [[tower.received, tower.single, tower.keys] for tower in towers]
        tower = Tower(*(_joined(list(those)) for those in zip(*parts, strict=True))) if towers else None
        return Seen(_joined([view.features for view in views]), tower, _joined(found) if found else None)


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


@dataclass(frozen=True, kw_only=True)
class Together(PerTile):
    """Tokens of all tiles and frames are chosen at once, each inside its own."""

    @abstractmethod
    def choose_all(self, pools: Pools, budgets: Sequence[int]) -> Selection: ...

    def choose(self, seen: Seen, budget: int) -> Selection:
        chosen = self.choose_all(Pools.alone(seen), [budget])
        kept, order = chosen.kept.sort()
        return Selection(kept, None if chosen.features is None else chosen.features[order])


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))
