"""What the cache methods that rank entries have in common."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from effivlm.caches import KeptLayer
from effivlm.methods._attention import pooled
from effivlm.methods._base import LayerView, best, gathered
from effivlm.methods._layers import LayeredCache, check, check_choice
from effivlm.methods._merge import MERGES, SCOPES, merged

POOLS = ("avg", "max")


@dataclass(frozen=True, kw_only=True)
class ScoredCache(LayeredCache):
    """Keep the protected end and, of the rest, the entries with the highest scores.

    Before any score counts: the first `sinks` entries and the first `visual_sinks` visual ones, where attention pools, and with
    `protect_text` all text; as far as the budget goes, in the order of the prompt. Scores are smoothed over `kernel` positions.
    `head_shared` ranks all KV heads by the mean of their scores, so that they keep the same entries. `merge` folds what is
    evicted into the most similar kept entry of its head.
    """

    sinks: int = 0
    visual_sinks: int = 0
    protect_text: bool = False
    head_shared: bool = False
    kernel: int = 1
    pool: str = "avg"
    merge: str = "none"
    merge_scope: str = "all"

    def __post_init__(self) -> None:
        super().__post_init__()
        check("sinks", self.sinks, 0)
        check("visual_sinks", self.visual_sinks, 0)
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ValueError(f"kernel {self.kernel} must be odd, so that scores stay in place")
        check_choice("pool", self.pool, POOLS)
        check_choice("merge", self.merge, MERGES)
        check_choice("merge_scope", self.merge_scope, SCOPES)

    @abstractmethod
    def scores(self, view: LayerView, early: int) -> Tensor:
        """Scores [H_kv, early] of the first `early` entries, in float32."""

    def ranked(self, view: LayerView, early: int) -> Tensor:
        """The scores [H_kv, early] that decide: shared among heads where asked, then smoothed."""
        scores = self.scores(view, early)
        if self.head_shared:
            scores = scores.mean(0).expand_as(scores)
        smooth = pooled(scores, self.kernel, self.pool) if early else scores
        return smooth.masked_fill(self.safe(view.visual[:early]), torch.inf)

    def safe(self, visual: Tensor) -> Tensor:
        """Which entries [early] stay before any score counts, of those whose `visual` [early] says what is visual."""
        numbers = torch.arange(len(visual), device=visual.device)
        return (
            (numbers < self.sinks)
            | (visual & (visual.cumsum(0) <= self.visual_sinks))
            | (~visual if self.protect_text else torch.zeros_like(visual))
        )

    def select(self, view: LayerView, budget: int, sample_id: str) -> Tensor:
        window = self.protected(budget, view.length)
        early = view.length - window
        chosen = best(self.ranked(view, early), budget - window)
        recent = torch.arange(early, view.length, device=chosen.device).expand(len(chosen), -1)
        return torch.cat([chosen, recent], dim=-1)

    def layer(self, view: LayerView, budget: int, sample_id: str) -> KeptLayer:
        chosen = self.select(view, budget, sample_id)
        return gathered(view, chosen) if self.merge == "none" else merged(view, chosen, self.merge, self.merge_scope)
