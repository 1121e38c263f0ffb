"""Cache entries drawn at random: the floor that every eviction method has to beat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from effivlm.methods._base import LayerView, generator
from effivlm.methods._layers import LayeredCache


@dataclass(frozen=True, kw_only=True)
class RandomKv(LayeredCache):
    """Keep K random entries of the prompt in every layer and KV head, each drawn on its own.

    Baseline of kvpress (arXiv 2510.00636). The last `window` entries or `window_share` of K always stay (EffiVLM-Bench,
    arXiv 2506.00479, keeps a tenth). `head_shared` draws once for all heads of a layer. With `layer_budgets` it is the control
    for how a method splits its total over layers.

    Differs from the paper: draws are seeded by sample, layer and head.
    """

    of: ClassVar[str] = "prompt entries"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {},
        "effivlm": {"window": 1, "window_share": 0.1},
    }

    head_shared: bool = False

    def select(self, view: LayerView, budget: int, sample_id: str) -> Tensor:
        window = self.protected(budget, view.length)
        early = view.length - window
        recent = torch.arange(early, view.length)
        heads = [0] * len(view.keys) if self.head_shared else range(len(view.keys))
        rows = [
            torch.cat([torch.randperm(early, generator=rng)[: budget - window], recent]).sort().values
            for rng in (generator(self.seed, sample_id, view.layer, head) for head in heads)
        ]
        return torch.stack(rows).to(view.keys.device, non_blocking=True)
