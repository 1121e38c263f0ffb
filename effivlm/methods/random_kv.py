"""Cache entries drawn at random: the floor that every eviction method has to beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from effivlm.caches import KeptLayer
from effivlm.methods._base import LayerView, alike, generator, taken
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
        return self._drawn(view, budget, sample_id).to(view.keys.device, non_blocking=True)

    def layers(self, views: Sequence[LayerView], budgets: Sequence[int], sample_id: str) -> list[KeptLayer]:
        if not alike(views):
            return super().layers(views, budgets, sample_id)
        drawn = [self._drawn(view, budget, sample_id) for view, budget in zip(views, budgets, strict=True)]
        sent = torch.cat([rows.flatten() for rows in drawn]).to(views[0].keys.device, non_blocking=True)
        pieces = zip(sent.split([rows.numel() for rows in drawn]), drawn, strict=True)
        return taken(views, [piece.view_as(rows) for piece, rows in pieces])

    def _drawn(self, view: LayerView, budget: int, sample_id: str) -> Tensor:
        """The entries [H_kv, budget] that stay, ascending, on the CPU."""
        window = self.protected(budget, view.length)
        early = view.length - window
        first = self._order(view, early, sample_id)[:, : budget - window]
        recent = torch.arange(early, view.length).expand(len(first), -1)
        return torch.cat([first.sort().values, recent], -1)

    def _order(self, view: LayerView, early: int, sample_id: str) -> Tensor:
        """The early entries in the order in which every head draws them [H_kv, early], the same for every budget."""
        heads = [0] * len(view.keys) if self.head_shared else range(len(view.keys))

        def order() -> Tensor:
            rngs = (generator(self.seed, sample_id, view.layer, head) for head in heads)
            return torch.stack([torch.randperm(early, generator=rng) for rng in rngs])

        return view.once(("drawn", self.seed, sample_id, early, self.head_shared), order)
