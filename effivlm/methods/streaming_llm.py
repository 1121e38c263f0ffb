"""StreamingLLM: the first few entries and the most recent ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from effivlm.compression.base import CachePart, LayerView, alike, taken
from effivlm.compression.layers import check, exact
from effivlm.decoding.caches import KeptLayer
from effivlm.decoding.rolling import Rolling


@dataclass(frozen=True, kw_only=True)
class StreamingLlm(CachePart):
    """Keep `sinks` entries at the start, where attention pools, and the K - sinks most recent ones (arXiv 2309.17453).

    `recent_share` > 0 turns the budget round, as EffiVLM-Bench (arXiv 2506.00479) does: that share of K is recent, all the
    rest sinks. With `evict_decode` the cache keeps its size: for every generated token the oldest entry but the sinks goes.

    Differs from the paper:
    - keys keep the rotary angles of their position in the prompt instead of their slot in the cache;
    - the prompt is seen whole and cut once at its end; K is a share of it, rounded half up;
    - preset effivlm (arXiv 2506.00479) keeps a tenth of K recent and the rest first, and evicts nothing while decoding; that it
      rounds K down is not reproduced.
    """

    of: ClassVar[str] = "prompt entries"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {},
        "effivlm": {"recent_share": 0.1, "evict_decode": False},
    }

    sinks: int = 4
    recent_share: float = 0.0
    evict_decode: bool = True

    def __post_init__(self) -> None:
        check("sinks", self.sinks, 0)
        check("recent_share", self.recent_share, 0, 1)

    def select(self, view: LayerView, budget: int, sample_id: str) -> Tensor:
        sinks = self._sinks(budget)
        numbers = torch.arange(view.length, device=view.keys.device)
        return torch.cat([numbers[:sinks], numbers[view.length - (budget - sinks) :]]).expand(len(view.keys), -1)

    def layers(self, views: Sequence[LayerView], budgets: Sequence[int], sample_id: str) -> list[KeptLayer]:
        if alike(views, budgets):  # every layer keeps the same places
            kept = taken(views, [self.select(views[0], budgets[0], sample_id)] * len(views))
        else:
            kept = super().layers(views, budgets, sample_id)
        if not self.evict_decode:
            return kept
        sinks = [self._sinks(budget) for budget in budgets]
        return [replace(layer, rolling=Rolling(sinks=first)) for layer, first in zip(kept, sinks, strict=True)]

    def _sinks(self, budget: int) -> int:
        """Entries at the start that stay; at least one recent entry stays beside them."""
        if self.recent_share:
            return budget - max(1, math.floor(exact(self.recent_share) * budget))
        return min(self.sinks, budget - 1)
