"""H2O: heavy hitters and the most recent entries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from effivlm.methods._attention import per_kv_head
from effivlm.methods._base import LayerView
from effivlm.methods._scored import ScoredCache


@dataclass(frozen=True, kw_only=True)
class H2o(ScoredCache):
    """Keep the most recent entries and those that got most attention from all rows of the prompt (arXiv 2306.14048).

    Half of the budget is recent, half heavy; heavy gets the odd one. The sums favour early entries, which more rows see.

    Differs from the paper:
    - sums are reduced over the query heads of a KV head, so that the cache stays as small as the model's own;
    - nothing is evicted while decoding: the budget is one of the prompt;
    - preset effivlm (arXiv 2506.00479) turns halves into a tenth recent, at least one, and nine tenths heavy.
    """

    of: ClassVar[str] = "prompt entries"
    columns: ClassVar[bool] = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {},
        "effivlm": {"window": 1, "window_share": 0.1},
    }

    window_share: float = 0.5

    def scores(self, view: LayerView, early: int) -> Tensor:
        assert view.received is not None
        return per_kv_head(view.received[:, :early], len(view.keys))
