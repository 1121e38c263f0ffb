"""VL-Cache: what the question looks at, with more room for layers whose attention is dense."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from effivlm.compression.attention import per_kv_head
from effivlm.compression.base import LayerView, of_all, question_rows
from effivlm.compression.scored import ScoredCache


@dataclass(frozen=True, kw_only=True)
class VlCache(ScoredCache):
    """Score entries by the attention of the text after the image, and layers by how dense that is (arXiv 2410.23317).

    A layer's density is the mean over query heads of the share of attention entries that reach `density_threshold` of their
    row's largest; layers * K is split in proportion to it. Preset hybrid splits four fifths evenly and the rest by density.

    Differs from the paper:
    - budgets are filled up to layers * K where the paper clips each and lets the total drift;
    - no layer falls under 0.01 of the prompt, as in the paper, or under a tenth of K where that is less: at K of 0.01, which
      the paper reports, its own floor leaves nothing to split;
    - no text after the image: the last 32 rows are looked at;
    - a tenth of every layer's budget is recent; a KV head has the mean of its query heads and keeps its own entries, which the
      paper leaves open;
    - preset effivlm (arXiv 2506.00479) has one choice for all heads and the same window in every layer; its budgets are
      exact, where that code clips nine tenths of each at 0.009 of the prompt and rounds down.
    """

    of: ClassVar[str] = "prompt entries"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {},
        "hybrid": {"uniform_share": 0.8},
        "effivlm": {"window": 1, "same_window": True, "head_shared": True},
    }

    window_share: float = 0.1
    layer_budgets: str = "density"
    density_threshold: float = 0.01
    density_floor: float = 0.01
    floor_share: float = 0.1

    def rows(self, visual: Tensor) -> int:
        return question_rows(visual)

    def shown(self, views: Sequence[LayerView]) -> Tensor:
        name = ("question heads", self.density_threshold)
        return of_all(views, name, lambda: per_kv_head(self.question(views)[0], len(views[0].keys)))
