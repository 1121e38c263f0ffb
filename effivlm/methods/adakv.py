"""Ada-KV: heads that look at many entries get more of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from effivlm.compression.base import LayerView, taken
from effivlm.compression.budget import apportion
from effivlm.compression.choose import best, best_of_each
from effivlm.compression.layers import check, check_choice, exact
from effivlm.decoding.caches import KeptLayer
from effivlm.methods.snapkv import SnapKv

FLOORS = ("convex", "lower_bound")


@dataclass(frozen=True, kw_only=True)
class AdaKv(SnapKv):
    """SnapKV's choice with a layer's budget shared out among its KV heads by their scores (arXiv 2407.11550).

    Ranking the entries of all heads together gives every head a count; `alpha` of the way back to equal counts is the safeguard.
    With `floor` "lower_bound" every head has that share of an equal count for certain and the rest is ranked together.

    Differs from the paper:
    - heads get whole numbers by largest remainder, so that they sum to heads * K; the released code rounds each;
    - as in `snapkv`: one index set per KV head, and K is a share of the prompt;
    - heads of different length are padded to the longest in memory; bytes are counted without the padding.
    """

    of: ClassVar[str] = "prompt entries"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {}}

    window: int = 32
    alpha: float = 0.2
    floor: str = "convex"

    def __post_init__(self) -> None:
        super().__post_init__()
        check("alpha", self.alpha, 0, 1)
        check_choice("floor", self.floor, FLOORS)
        if self.head_shared:
            raise ValueError("head_shared True is not allowed: heads differ in how many entries they keep")
        if self.merge != "none":
            raise ValueError(f"merge {self.merge!r} is not allowed: heads of different length are not merged")

    def layers(self, views: Sequence[LayerView], budgets: Sequence[int], sample_id: str) -> list[KeptLayer]:
        """Heads of a layer keep different numbers of entries, so no layer has one tensor of them."""
        kept = [self._heads(view, budget) for view, budget in zip(views, budgets, strict=True)]
        longest = [max(len(head) for head in heads) for heads in kept]
        places = [
            torch.stack([pad(head, (0, most - len(head))) for head in heads])
            for heads, most in zip(kept, longest, strict=True)
        ]
        counts = [tuple(len(head) for head in heads) for heads in kept]
        return [
            replace(layer, lengths=lengths if len(set(lengths)) > 1 else None)
            for layer, lengths in zip(taken(views, places), counts, strict=True)
        ]

    def _heads(self, view: LayerView, budget: int) -> list[Tensor]:
        """The entries that each head keeps, ascending."""
        window = self.protected(budget, view.length)
        early = view.length - window
        scores = self.ranked([view], [early])[0, :, :early]
        recent = torch.arange(early, view.length, device=scores.device)
        return [torch.cat([row, recent]) for row in best_of_each(scores, self.shares(scores, budget - window))]

    def shares(self, scores: Tensor, equal: int) -> list[int]:
        """How many entries each head keeps by its scores [H, n], `equal` on average."""
        heads, early = scores.shape
        total, alpha = heads * equal, exact(self.alpha)
        if not total:
            return [0] * heads
        if self.floor == "lower_bound":
            certain = best(scores, int(alpha * equal))
            scores = scores.scatter(1, certain, torch.inf)
        owners = best(scores.flatten(), total) // early
        counts: list[int] = owners.bincount(minlength=heads).tolist()
        if self.floor == "lower_bound":
            return counts
        return apportion([(1 - alpha) * count + alpha * equal for count in counts], total, high=early)
