"""H2O: heavy hitters and the most recent entries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from effivlm.compression.attention import per_kv_head
from effivlm.compression.base import LayerView, alike, of_all
from effivlm.compression.scored import ScoredCache
from effivlm.decoding.caches import KeptLayer
from effivlm.decoding.rolling import Rolling

SAFE = 1e30  # more than attention can sum to; finite, so that of entries that are all safe one can still go


@dataclass(frozen=True, kw_only=True)
class H2o(ScoredCache):
    """Keep the most recent entries and those that got most attention from all rows of the prompt (arXiv 2306.14048).

    Half of the budget is recent, half heavy; heavy gets the odd one. The sums favour early entries, which more rows see. With
    `evict_decode` the cache keeps its size: after every generated token the entry that got least goes, never a recent one. As in
    the authors' code, the prompt is seen whole and cut once at its end.

    Differs from the paper:
    - sums are reduced over the query heads of a KV head, so that the cache stays as small as the model's own;
    - K is rounded half up and met exactly, where the authors' code gives both parts as numbers or rounds a share for each down;
    - preset effivlm (arXiv 2506.00479) turns halves into a tenth recent, at least one, and nine tenths heavy, and evicts nothing
      while decoding; that it rounds K down is not reproduced.
    """

    of: ClassVar[str] = "prompt entries"
    columns: ClassVar[bool] = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {},
        "effivlm": {"window": 1, "window_share": 0.1, "evict_decode": False},
    }

    window_share: float = 0.5
    evict_decode: bool = True

    def shown(self, views: Sequence[LayerView]) -> Tensor:
        """Attention [L, H_kv, N] that entries got from all rows of the prompt."""
        received = [view.received for view in views if view.received is not None]
        return of_all(views, "all columns", lambda: per_kv_head(torch.stack(received), len(views[0].keys)))

    def layers(self, views: Sequence[LayerView], budgets: Sequence[int], sample_id: str) -> list[KeptLayer]:
        kept = super().layers(views, budgets, sample_id)
        if not self.evict_decode:
            return kept
        if alike(views, budgets):
            scores = self._carried(views, kept)
        else:
            scores = [self._carried([view], [layer])[0] for view, layer in zip(views, kept, strict=True)]
        recent = [self.protected(budget, view.length) for view, budget in zip(views, budgets, strict=True)]
        return [
            replace(layer, rolling=Rolling(recent=held, scores=own, shared=self.head_shared))
            for layer, held, own in zip(kept, recent, scores, strict=True)
        ]

    def _carried(self, views: Sequence[LayerView], kept: Sequence[KeptLayer]) -> list[Tensor]:
        """The sums [H_kv, K] that the kept entries of layers of one form begin to decode with."""
        places = torch.stack([layer.indices for layer in kept if layer.indices is not None])
        scores = self.shown(views).gather(2, places)
        if self.guards:
            scores = scores.masked_fill(self.safe(views[0].visual)[places], SAFE)
        return list(scores)
