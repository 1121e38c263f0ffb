"""StreamingLLM: the first few entries and the most recent ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from effivlm.methods._base import CachePart, LayerView
from effivlm.methods._layers import check, exact


@dataclass(frozen=True, kw_only=True)
class StreamingLlm(CachePart):
    """Keep `sinks` entries at the start, where attention pools, and the K - sinks most recent ones (arXiv 2309.17453).

    `recent_share` > 0 turns the budget round, as EffiVLM-Bench (arXiv 2506.00479) does: that share of K is recent, all the
    rest sinks.

    Differs from the paper:
    - keys keep the rotary angles of their position in the prompt instead of their slot in the cache;
    - nothing is evicted while decoding: the budget is one of the prompt.
    """

    of: ClassVar[str] = "prompt entries"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {}, "effivlm": {"recent_share": 0.1}}

    sinks: int = 4
    recent_share: float = 0.0

    def __post_init__(self) -> None:
        check("sinks", self.sinks, 0)
        check("recent_share", self.recent_share, 0, 1)

    def select(self, view: LayerView, budget: int, sample_id: str) -> Tensor:
        if self.recent_share:
            sinks = budget - max(1, math.floor(exact(self.recent_share) * budget))
        else:
            sinks = min(self.sinks, budget - 1)
        kept = torch.cat([torch.arange(sinks), torch.arange(view.length - (budget - sinks), view.length)])
        return kept.to(view.keys.device).expand(view.keys.shape[0], -1)
