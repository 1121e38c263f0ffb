"""SparseVLM: words that ask about the picture rate its tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from effivlm.compression.base import Selection, Stage
from effivlm.compression.choose import best
from effivlm.compression.clusters import clustered
from effivlm.compression.stages import StagedPart, at_depth, attention_of, text_after
from effivlm.records import Unsupported

WRITTEN_FOR = 32  # decoder layers of the models for which the layers are given


@dataclass(frozen=True, kw_only=True)
class SparseVlm(StagedPart):
    """After some decoder layers, keep the visual tokens that the text about them attends most (arXiv 2410.04417).

    Raters are the text entries after the first image whose embeddings are more like the visual ones than the mean. The best
    of the dropped tokens are recycled: clustered by density peaks, each cluster's mean staying at the place of its centre.
    Preset paper is the published version 1.5. v2 is the code's branch 2.0: it recycles nothing, divides attention by the product
    of ones turned by the rotary angles (`weigh_position`) and listens only to the heads that look at the picture most. final is
    1.5 with keep as what the last layers see, for budgets under the first layers' part of the mean.

    Differs from the paper:
    - counts follow from keep, in the proportions of `counts`, where the paper goes by the rank of the attention and its code has
      fixed lists for four budgets of 576 tokens; clusters are counted, which the code's budgets leave out;
    - layers 2, 6 and 15 of 32 are scaled to the depth of the decoder, and the 14 heads that v2's code listens to are a share of
      its heads (`head_share`, 14 of 32);
    - in version 1.5, too, kept tokens keep the rotary angles of their place in the prompt, where its code moves them up, and a
      cluster stands at the place of its centre, not behind the kept tokens;
    - text between images rates and stays, where the code knows one image; where all words rate alike all do, not none;
    - clustering adds no noise: ties go to the earlier token.
    """

    of: ClassVar[str] = "visual tokens"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {},
        "v2": {"recycle": False, "counts": (300, 200, 118), "weigh_position": True, "head_share": 0.4375},
        "final": {"budget_scope": "final"},
    }

    layers: tuple[int, ...] = (2, 6, 15)
    counts: tuple[int, ...] = (300, 200, 110)
    recycle: bool = True
    recycled_share: float = 0.3
    weigh_position: bool = False
    head_share: float = 1.0
    budget_scope: str = "average"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.layers or len(self.layers) != len(self.counts):
            raise ValueError(f"layers {self.layers} and counts {self.counts} must be equally many, and at least one")
        if min(self.counts) < 1 or list(self.counts) != sorted(self.counts, reverse=True):
            raise ValueError(f"counts {self.counts} must be 1 or more and must not grow")
        for name in ("recycled_share", "head_share"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} {getattr(self, name)} must lie in (0, 1]")

    def stages(self, depth: int) -> tuple[int, ...]:
        found = [layer + 1 for layer in at_depth(self.layers, WRITTEN_FOR, depth)]
        if found[-1] == depth:
            raise Unsupported(f"layer {found[-1] - 1} is the last one: nothing is left to prune for")
        return tuple(found)

    def shares(self, level: float) -> Sequence[float]:
        return [min(1.0, level * count / self.counts[-1]) for count in self.counts]

    def rows(self, visual: Tensor) -> int:
        return len(visual) - int(visual.nonzero()[0, 0])

    def select(self, stage: Stage, budget: int, sample_id: str) -> Selection:
        raters = chosen_raters(stage.embeds, stage.marks)
        if stage.there is not None:
            raters = torch.searchsorted(stage.there, raters)
        visual = stage.visual.nonzero()[:, 0]
        attention = attention_of(stage.before, raters)[..., visual]
        if self.weigh_position:
            alone = _position_alone(stage.angles, raters, visual)
            attention = torch.where(attention > 0, attention / alone, 0.0)  # what stands behind a rater stays at 0
        if self.head_share < 1:
            heads = max(1, math.floor(self.head_share * len(attention) + 0.5))
            attention = attention[best(attention.sum((1, 2)), heads)]
        scores = attention.mean((0, 1))
        kept = budget - self._clusters(len(visual), budget)
        if kept == budget:
            return Selection(visual[best(scores, budget)])
        return self._recycled(stage.hidden[visual], visual, scores, kept, budget)

    def _recycled(self, hidden: Tensor, visual: Tensor, scores: Tensor, kept: int, budget: int) -> Selection:
        """The `kept` best tokens, and of the rest the best ones in budget - kept clusters."""
        gone = torch.ones_like(visual, dtype=torch.bool)
        gone[best(scores, kept)] = False
        rest = gone.nonzero()[:, 0]
        pool = rest[best(scores[rest], self._pool(len(rest)))]
        centres, means = clustered(hidden[pool].float(), budget - kept)
        merged = hidden.clone()
        merged[pool[centres]] = means.to(hidden.dtype)
        gone[pool[centres]] = False
        stay = (~gone).nonzero()[:, 0]
        return Selection(visual[stay], merged[stay])

    def _pool(self, dropped: int) -> int:
        """How many of the dropped tokens are recycled."""
        return min(dropped, math.floor(self.recycled_share * dropped) + 1)

    def _clusters(self, present: int, budget: int) -> int:
        """How many of `budget` places go to clusters: a tenth of what is recycled and one, of what the others leave."""
        if not self.recycle or budget == present:
            return 0
        # a kept token more means a cluster less at most, so the first sum that fits is met exactly unless one is kept
        for kept in range(budget, 1, -1):
            if kept + self._pool(present - kept) // 10 + 1 <= budget:
                return budget - kept
        return budget - 1


def _position_alone(angles: tuple[Tensor, Tensor], rows: Tensor, columns: Tensor) -> Tensor:
    """Products [R, C] of ones turned by their rotary angles, over the root of their width: what position alone says of a pair.

    No softmax: as in the released code, a pair that position sets against each other counts negatively.
    """
    cosines, sines = (table.float() for table in angles)
    half = cosines.shape[-1] // 2
    signs = torch.ones_like(cosines)
    signs[:, :half] = -1  # the halves of a vector are turned against each other
    turned = cosines + signs * sines
    products: Tensor = turned[rows] @ turned[columns].T / turned.shape[-1] ** 0.5
    return products


def chosen_raters(embeds: Tensor, marks: Tensor) -> Tensor:
    """Places of the text entries that rate: embeddings [P, d] of a prompt, of which `marks` [P] are visual.

    Raises:
        ValueError: no text follows the first image.
    """
    text = text_after(marks)
    if not len(text):
        raise ValueError("no text follows the first image, so nothing rates its tokens")
    likeness = (embeds[marks].float() @ embeds[text].float().T).softmax(-1).mean(0).double()
    # means equal up to rounding are equal; where all are, all rate
    above = likeness > likeness.mean() * (1 + 1e-6)
    return text[above] if bool(above.any()) else text
