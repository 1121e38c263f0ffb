"""SnapKV: what the end of the prompt looks at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from effivlm.compression.base import LayerView
from effivlm.compression.scored import ScoredCache


@dataclass(frozen=True, kw_only=True)
class SnapKv(ScoredCache):
    """Keep the last `window` entries and those that got most attention from them, smoothed along positions (arXiv 2404.14469).

    Scores are float32 attention of the window's rows, reduced over the query heads of a KV head, then pooled; every KV head
    keeps its own entries unless `head_shared`. Where K <= window, the window shrinks to K - 1.

    Differs from the paper:
    - one index set per KV head instead of per query head, so that the cache stays as small as the model's own;
    - K is a share of the prompt, rounded half up, instead of a fixed capacity; with `window_share` the window is one of K (preset
      effivlm, as in EffiVLM-Bench, arXiv 2506.00479, with kernel 5 and average pooling; that it rounds K down is not reproduced);
    - what the window does not look at can be merged instead of dropped, and layers can differ: both are off by default.
    """

    of: ClassVar[str] = "prompt entries"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {},
        "effivlm": {"window": 1, "window_share": 0.1, "kernel": 5, "pool": "avg"},
    }

    window: int = 32
    same_window: bool = True
    kernel: int = 7
    pool: str = "max"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window < 1:
            raise ValueError(f"window {self.window} must be 1 or more: its rows are what scores come from")
        if not self.same_window:
            raise ValueError("same_window False is not allowed: scores come from the same rows in all layers")

    def rows(self, visual: Tensor) -> int:
        return max(super().rows(visual), self.held(self.keep.of(len(visual)), len(visual)))

    def held(self, budget: int, length: int) -> int:
        return max(1, min(super().held(budget, length), budget - 1, length - 1))

    def shown(self, views: Sequence[LayerView]) -> Tensor:
        length = views[0].length
        return self.last_rows(views, self.held(self.keep.of(length), length))
