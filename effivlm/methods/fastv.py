"""FastV: an image is worth half its tokens after layer 2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from effivlm.compression.base import Selection, Stage
from effivlm.compression.choose import best
from effivlm.compression.stages import StagedPart, only
from effivlm.seams.columns import received


@dataclass(frozen=True, kw_only=True)
class FastV(StagedPart):
    """On entry to decoder layer `layer`, keep the K visual tokens that the layer before it attended most (arXiv 2403.06764).

    The score is the mean over heads of the attention from the last prompt position; `query_rows="all"` averages over all
    positions, as EffiVLM-Bench (arXiv 2506.00479) does. Text is never pruned. Preset average makes keep the mean over all
    layers, the first ones included, so that fewer tokens stay in the others; `budget_scope` "post" counts only those.

    Differs from the paper:
    - K is rounded half up over all images of the sample;
    - the choice is made once, in the prefill (the paper's code without a cache ranks again at every generated token);
    - preset effivlm reproduces neither that text between images is pruned with them nor that K is rounded down.
    """

    of: ClassVar[str] = "visual tokens"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {},
        "effivlm": {"query_rows": "all"},
        "average": {"budget_scope": "average"},
    }
    scopes: ClassVar[tuple[str, ...]] = ("post", "average")

    layer: int = 2
    query_rows: str = "last"
    budget_scope: str = "post"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.query_rows not in ("last", "all"):
            raise ValueError(f"query_rows {self.query_rows!r} is neither 'last' nor 'all'")
        if self.layer < 1:
            raise ValueError(
                f"layer {self.layer} cannot prune: the layer before it is observed, so it must be 1 or more"
            )

    def stages(self, depth: int) -> tuple[int, ...]:
        return only(self.layer, depth)

    def shares(self, level: float) -> Sequence[float]:
        return [level]

    def rows(self, visual: Tensor) -> int:
        return 1 if self.query_rows == "last" else len(visual)

    def select(self, stage: Stage, budget: int, sample_id: str) -> Selection:
        view = stage.before
        attention = received(view.queries[:, -self.rows(stage.visual) :], view.keys)
        visual = stage.visual.nonzero()[:, 0]
        return Selection(visual[best(attention.mean(0)[visual], budget)])
