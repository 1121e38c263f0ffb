"""Evenly spread tokens: a pruning method in one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from effivlm.extending import ImageView, Selection, VisualPart


@dataclass(frozen=True, kw_only=True)
class Evenly(VisualPart):
    """Of every picture keep visual tokens at equal distances, in the order in which they are read.

    Differs from the paper: there is none, this is an example.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {}, "leftmost": {"start": 0.0}}

    start: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.start < 1:
            raise ValueError(f"start {self.start} is not a place within a step: it must lie in [0, 1)")

    def select(self, views: Sequence[ImageView], sample_id: str) -> list[Selection]:
        shares = self.shares(views)  # tokens of each picture; together they are the sample's budget
        return [Selection(self._spread(view.real, share)) for view, share in zip(views, shares, strict=True)]

    def _spread(self, real: Tensor, count: int) -> Tensor:
        """`count` of the token numbers in `real` [n], ascending."""
        places = (torch.arange(count, device=real.device) + self.start) * len(real) / max(1, count)
        return real[places.long()]
