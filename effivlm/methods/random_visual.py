"""Visual tokens drawn at random: the floor that every pruning method has to beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from effivlm.compression.base import ImageView, Selection, VisualPart, generator


@dataclass(frozen=True, kw_only=True)
class RandomVisual(VisualPart):
    """Keep K visual tokens of a sample, drawn without replacement, shared among images by size.

    Control row of UniPruneBench and VTC-Bench (arXiv 2510.07143). Newline markers are never drawn.

    Differs from the paper: draws are seeded by sample, K is rounded over the sample, kept tokens stay in order.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {}}

    def select(self, views: Sequence[ImageView], sample_id: str) -> list[Selection]:
        chosen = []
        for image, (view, share) in enumerate(zip(views, self.shares(views), strict=True)):
            order = torch.randperm(len(view.real), generator=generator(self.seed, sample_id, "visual", image))
            chosen.append(Selection(view.real[order[:share].sort().values.to(view.real.device)]))
        return chosen
