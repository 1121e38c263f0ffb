"""Cache entries drawn at random: the floor that every eviction method has to beat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from effivlm.methods._base import CachePart, LayerView, generator


@dataclass(frozen=True, kw_only=True)
class RandomKv(CachePart):
    """Keep K random entries of the prompt in every layer and KV head, each drawn on its own.

    Baseline of kvpress (arXiv 2510.00636). `window_share` of K always goes to the last positions (EffiVLM-Bench,
    arXiv 2506.00479, keeps a tenth).

    Differs from the paper: draws are seeded by sample, layer and head.
    """

    of: ClassVar[str] = "prompt entries"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {}, "effivlm": {"window_share": 0.1}}

    window_share: float = 0.0

    def select(self, view: LayerView, budget: int, sample_id: str) -> Tensor:
        window = max(1, int(self.window_share * budget)) if self.window_share else 0
        early = view.length - window
        recent = torch.arange(early, view.length)
        rows = [
            torch.cat([torch.randperm(early, generator=rng)[: budget - window], recent]).sort().values
            for rng in (generator(self.seed, sample_id, view.layer, head) for head in range(view.keys.shape[0]))
        ]
        return torch.stack(rows).to(view.keys.device)
