"""TOVA: what the last position looks at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from effivlm.compression.base import LayerView
from effivlm.compression.scored import ScoredCache


@dataclass(frozen=True, kw_only=True)
class Tova(ScoredCache):
    """Keep the entries that the last position of the prompt attends most, the same for all heads (arXiv 2401.06104).

    The score is the mean over heads; nothing is protected, neither the start nor the end.

    Differs from the paper:
    - the prompt is seen whole and cut once at its end, where the paper drops an entry at every position beyond the budget;
    - nothing is evicted while decoding: the budget is one of the prompt.
    """

    of: ClassVar[str] = "prompt entries"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {}}

    head_shared: bool = True

    def rows(self, visual: Tensor) -> int:
        return max(super().rows(visual), 1)

    def shown(self, views: Sequence[LayerView]) -> Tensor:
        return self.last_rows(views, 1)
