"""Visual tokens drawn at random: the floor that every pruning method has to beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from effivlm.methods._base import Selection, VisualPart, generator
from effivlm.methods._budget import apportion


@dataclass(frozen=True, kw_only=True)
class RandomVisual(VisualPart):
    """Keep K visual tokens of a sample, drawn without replacement, shared among images by size.

    Control row of UniPruneBench and VTC-Bench (arXiv 2510.07143). Newline markers are never drawn.

    Differs from the paper: draws are seeded by sample, K is rounded over the sample, kept tokens stay in order.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {}}

    def select(self, features: Sequence[Tensor], places: Sequence[Tensor], sample_id: str) -> list[Selection]:
        sizes = [len(feature) for feature in features]
        candidates = [(place[:, 0] >= 0).nonzero()[:, 0] for place in places]
        room = [len(candidate) for candidate in candidates]
        budget = min(self.keep.of(sum(sizes)), sum(room))
        shares = apportion(sizes, budget, low=int(budget >= len(sizes)), high=room)
        chosen = []
        for image, (candidate, share) in enumerate(zip(candidates, shares, strict=True)):
            order = torch.randperm(len(candidate), generator=generator(self.seed, sample_id, "visual", image))
            chosen.append(Selection(candidate[order[:share].sort().values.to(candidate.device)]))
        return chosen
