"""Cache entries drawn at random: the floor that every eviction method has to beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from effivlm.compression.base import LayerView, alike, generator, of_all, taken
from effivlm.compression.layers import LayeredCache
from effivlm.decoding.caches import KeptLayer


@dataclass(frozen=True, kw_only=True)
class RandomKv(LayeredCache):
    """Keep K random entries of the prompt in every layer and KV head, each drawn on its own.

    Baseline of kvpress (arXiv 2510.00636). The last `window` entries or `window_share` of K always stay (EffiVLM-Bench,
    arXiv 2506.00479, keeps a tenth). `head_shared` draws once for all heads of a layer. With `layer_budgets` it is the control
    for how a method splits its total over layers.

    Differs from the paper: draws are seeded by sample, layer and head; K is rounded half up (preset effivlm, too, where
    EffiVLM-Bench rounds both parts down).
    """

    of: ClassVar[str] = "prompt entries"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {},
        "effivlm": {"window": 1, "window_share": 0.1},
    }

    head_shared: bool = False

    def select(self, view: LayerView, budget: int, sample_id: str) -> Tensor:
        return self._drawn([view], budget, sample_id)[0].to(view.keys.device, non_blocking=True)

    def layers(self, views: Sequence[LayerView], budgets: Sequence[int], sample_id: str) -> list[KeptLayer]:
        if not alike(views):
            return super().layers(views, budgets, sample_id)
        groups = [views] if alike(views, budgets) else [[view] for view in views]
        drawn = [self._drawn(group, budget, sample_id) for group, budget in zip(groups, budgets, strict=False)]
        sent = torch.cat([rows.flatten() for rows in drawn]).to(views[0].keys.device, non_blocking=True)
        pieces = zip(sent.split([rows.numel() for rows in drawn]), drawn, strict=True)
        return taken(views, [rows for piece, group in pieces for rows in piece.view_as(group)])

    def _drawn(self, views: Sequence[LayerView], budget: int, sample_id: str) -> Tensor:
        """The entries [L, H_kv, budget] that stay of layers of one length, ascending, on the CPU."""
        length = views[0].length
        window = self.protected(budget, length)
        first = self._order(views, length - window, sample_id)[..., : budget - window]
        recent = torch.arange(length - window, length).expand(*first.shape[:2], -1)
        return torch.cat([first.sort().values, recent], -1)

    def _order(self, views: Sequence[LayerView], early: int, sample_id: str) -> Tensor:
        """The early entries in the order in which every head draws them [L, H_kv, early], the same for every budget."""
        count = len(views[0].keys)
        pairs = [(view.layer, 0 if self.head_shared else head) for view in views for head in range(count)]

        def order() -> Tensor:
            rngs = (generator(self.seed, sample_id, *pair) for pair in pairs)
            orders = torch.stack([torch.randperm(early, generator=rng) for rng in rngs])
            return orders.view(len(views), count, early)

        return of_all(views, ("drawn", self.seed, sample_id, early, self.head_shared), order)
