"""SnapKV: what the end of the prompt looks at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from effivlm.methods._attention import per_kv_head, pooled, row_attention
from effivlm.methods._base import CachePart, LayerView, best


@dataclass(frozen=True, kw_only=True)
class SnapKv(CachePart):
    """Keep the last `window` entries and those that got most attention from them, smoothed along positions (arXiv 2404.14469).

    Scores are float32 attention of the window's rows, reduced over the query heads of a KV head, then pooled; every KV head
    keeps its own entries. Where K <= window, the window shrinks to K - 1.

    Differs from the paper:
    - one index set per KV head instead of per query head, so that the cache stays as small as the model's own;
    - K is a share of the prompt instead of a fixed capacity; `window_share` > 0 makes the window a share of K
      (EffiVLM-Bench, arXiv 2506.00479, with kernel 5 and average pooling).
    """

    of: ClassVar[str] = "prompt entries"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {},
        "effivlm": {"window_share": 0.1, "kernel": 5, "pool": "avg"},
    }

    window: int = 32
    kernel: int = 7
    pool: str = "max"
    window_share: float = 0.0

    def __post_init__(self) -> None:
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ValueError(f"kernel {self.kernel} must be odd, so that scores stay in place")
        if self.window < 1:
            raise ValueError(f"window {self.window} must be 1 or more: its rows are what scores come from")

    def rows(self, visual: Tensor) -> int:
        return self._window(self.keep.of(len(visual)), len(visual))

    def select(self, view: LayerView, budget: int, sample_id: str) -> Tensor:
        length, heads = view.length, view.keys.shape[0]
        window = self._window(budget, length)
        early = length - window
        attention = row_attention(view.queries[:, -window:], view.keys)[..., :early].sum(1)
        scores = pooled(per_kv_head(attention, heads), self.kernel, self.pool)
        recent = torch.arange(early, length, device=scores.device).expand(heads, -1)
        return torch.cat([best(scores, max(0, budget - window)), recent[:, -budget:]], dim=-1)

    def _window(self, budget: int, length: int) -> int:
        wanted = int(self.window_share * budget) if self.window_share else self.window
        return max(1, min(wanted, budget - 1, length - 1))
