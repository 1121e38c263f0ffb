"""DART: duplication matters more than importance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from torch.nn.functional import normalize

from effivlm.compression.base import LayerPart, Selection, Stage
from effivlm.compression.budget import apportion
from effivlm.compression.choose import best
from effivlm.compression.stages import only, text_after


@dataclass(frozen=True, kw_only=True)
class Dart(LayerPart):
    """On entry to decoder layer `layer`, keep a few pivots and the visual tokens least like them (arXiv 2502.11494).

    Pivots are the visual tokens, and the text entries after the first image, whose keys in the layer before have the largest
    L1 norm over all heads. Each in turn, visual ones first, the largest norm first, takes an equal share of the budget: the
    tokens not yet taken whose hidden states, after the decoder's last norm, have the lowest cosine with its own.

    Differs from the paper:
    - K is rounded half up over all images of the sample and met exactly, visual pivots included;
    - pivots take turns in the order of their norms (the published code walks through an unordered set).
    """

    of: ClassVar[str] = "visual tokens"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {}}

    layer: int = 2
    visual_pivots: int = 4
    text_pivots: int = 4

    def __post_init__(self) -> None:
        if self.layer < 1:
            raise ValueError(f"layer {self.layer} cannot prune: keys of the layer before it are needed, so 1 or more")
        if self.visual_pivots < 1 or self.text_pivots < 0:
            raise ValueError(
                f"visual_pivots {self.visual_pivots} must be 1 or more, text_pivots {self.text_pivots} 0 or more"
            )

    def stages(self, depth: int) -> tuple[int, ...]:
        return only(self.layer, depth)

    def rows(self, visual: Tensor) -> int:
        return 0

    def select(self, stage: Stage, budget: int, sample_id: str) -> Selection:
        norms = stage.before.keys.float().abs().sum((0, 2))
        visual = stage.visual.nonzero()[:, 0]
        first = _largest(norms, visual, min(self.visual_pivots, budget))
        pivots = [*first, *_largest(norms, text_after(stage.visual), self.text_pivots)]
        directions = normalize(stage.normed().float(), dim=-1)
        free = stage.visual.clone()
        free[first] = False
        kept = stage.visual & ~free
        for pivot, share in zip(pivots, apportion([1] * len(pivots), budget - len(first)), strict=True):
            pool = free.nonzero()[:, 0]
            taken = pool[best(-(directions[pool] @ directions[pivot]), share)]
            free[taken] = False
            kept[taken] = True
        return Selection(kept.nonzero()[:, 0])


def _largest(norms: Tensor, among: Tensor, count: int) -> list[int]:
    """The `count` entries `among` [M] with the largest norms, the largest first, ties to the earlier one."""
    order = norms[among].sort(descending=True, stable=True).indices[:count]
    return [int(entry) for entry in among[order]]
