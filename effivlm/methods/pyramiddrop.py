"""PyramidDrop: fewer visual tokens the deeper the layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from effivlm.compression.base import Selection, Stage
from effivlm.compression.choose import best
from effivlm.compression.stages import StagedPart, at_depth
from effivlm.seams.columns import row_attention


@dataclass(frozen=True, kw_only=True)
class PyramidDrop(StagedPart):
    """Keep a constant share of the visual tokens from each part of the decoder to the next (arXiv 2410.17247).

    The decoder is cut into `segments` equal parts. The score of a token is the attention that the last prompt position would
    give it in the first layer of the next part, mean over heads. The share follows from keep, which is the mean over all
    layers: 0.469 halves them three times. Preset final: keep is what the last part sees, for budgets that the first part
    alone exceeds.

    Differs from the paper:
    - shares follow from the budget instead of one half each, and counts are rounded half up instead of down;
    - kept tokens keep the rotary angles of their place in the prompt instead of moving up at every stage.
    """

    of: ClassVar[str] = "visual tokens"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {}, "final": {"budget_scope": "final"}}

    segments: int = 4
    budget_scope: str = "average"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.segments < 2:
            raise ValueError(f"segments {self.segments} must be 2 or more: tokens leave between them")

    def stages(self, depth: int) -> tuple[int, ...]:
        return at_depth(range(1, self.segments), self.segments, depth)

    def shares(self, level: float) -> Sequence[float]:
        return [level**stage for stage in range(1, self.segments)]

    def rows(self, visual: Tensor) -> int:
        return 0

    def select(self, stage: Stage, budget: int, sample_id: str) -> Selection:
        view = stage.ahead()
        visual = stage.visual.nonzero()[:, 0]
        attention = row_attention(view.queries[:, -1:], view.keys)[:, 0].mean(0)
        return Selection(visual[best(attention[visual], budget)])
