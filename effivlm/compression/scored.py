"""What the cache methods that rank entries have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from effivlm.compression.attention import per_kv_head, pooled
from effivlm.compression.base import LayerView, alike, keys_of, of_all, taken
from effivlm.compression.choose import best_of_each
from effivlm.compression.layers import LayeredCache, check, check_choice
from effivlm.compression.merge import MERGES, SCOPES, inverse_norms, merged, partners
from effivlm.decoding.caches import KeptLayer
from effivlm.seams.columns import received_of_layers

POOLS = ("avg", "max")
FIRST = torch.finfo(torch.float32).max  # more than any score, and less than what the window has


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
    def shown(self, views: Sequence[LayerView]) -> Tensor:
        """What attention says of all entries [L, H_kv, N] of layers that are alike, in float32; what is costly in it goes through
        `of_all`."""

    def weighed(self, scores: Tensor, visual: Tensor) -> Tensor:
        """What the method makes of `shown` [L, H_kv, N] of all layers, of which only the early entries are there."""
        return scores

    def look(self, view: LayerView) -> None:
        if self.merge != "none":
            inverse_norms(view)

    def ranked(self, views: Sequence[LayerView], early: Sequence[int]) -> Tensor:
        """The scores [L, H_kv, N] that decide, of layers that are alike; infinite behind the `early` entries of a layer.

        Heads share scores where asked; then they are smoothed, as if nothing stood behind the early entries.
        """
        scores = self.shown(views)
        behind = self._behind(scores, early)
        nothing = 0.0 if self.pool == "avg" else -torch.inf  # what pooling takes for the outside
        scores = self.weighed(scores.masked_fill(behind, nothing), views[0].visual).masked_fill(behind, nothing)
        if self.head_shared:
            scores = scores.mean(1, keepdim=True).expand_as(scores)
        scores = pooled(scores, self.kernel, self.pool)
        if self.guards:
            scores = scores.masked_fill(self.safe(views[0].visual), FIRST)
        return scores.masked_fill(behind, torch.inf)

    def _behind(self, scores: Tensor, early: Sequence[int]) -> Tensor:
        """Which entries stand behind the early ones of their layer; [N] where these are as many in all, else [L, 1, N]."""
        numbers = torch.arange(scores.shape[-1], device=scores.device)
        if len(set(early)) == 1:
            return numbers >= early[0]
        return numbers >= torch.tensor(early).to(scores.device, non_blocking=True)[:, None, None]

    @property
    def guards(self) -> bool:
        """Whether any entry stays before scores count."""
        return bool(self.sinks or self.visual_sinks or self.protect_text)

    def safe(self, visual: Tensor) -> Tensor:
        """Which entries [N] stay before any score counts; `visual` [N] says which are visual."""
        numbers = torch.arange(len(visual), device=visual.device)
        return (
            (numbers < self.sinks)
            | (visual & (visual.cumsum(0) <= self.visual_sinks))
            | (~visual if self.protect_text else torch.zeros_like(visual))
        )

    def select(self, view: LayerView, budget: int, sample_id: str) -> Tensor:
        return self._chosen([view], [budget])[0]

    def layers(self, views: Sequence[LayerView], budgets: Sequence[int], sample_id: str) -> list[KeptLayer]:
        """Layers that see the same entries are ranked in one pass, which takes a few large kernels."""
        if alike(views):
            chosen = self._chosen(views, budgets)
        else:
            chosen = [self._chosen([view], [budget])[0] for view, budget in zip(views, budgets, strict=True)]
        return taken(views, chosen) if self.merge == "none" else self._folded(views, chosen)

    def _chosen(self, views: Sequence[LayerView], budgets: Sequence[int]) -> list[Tensor]:
        """The entries [H_kv, K] that stay of layers that are alike: those behind the early ones, and the best of these."""
        length = views[0].length
        return best_of_each(self.ranked(views, [length - self.protected(one, length) for one in budgets]), budgets)

    def _folded(self, views: Sequence[LayerView], chosen: Sequence[Tensor]) -> list[KeptLayer]:
        """The chosen entries of every layer, with the others folded into them."""
        if alike(views, [kept.shape[1] for kept in chosen]):
            there = partners(views, chosen, self.merge_scope)
        else:
            there = [partners([view], [kept], self.merge_scope)[0] for view, kept in zip(views, chosen, strict=True)]
        return [merged(view, kept, self.merge, one) for view, kept, one in zip(views, chosen, there, strict=True)]

    def last_rows(self, views: Sequence[LayerView], rows: int) -> Tensor:
        """Attention [L, H_kv, N] that entries get from the last `rows` rows, mean over the query heads of a KV head."""

        def looked() -> Tensor:
            sums = received_of_layers([view.queries[:, -rows:] for view in views], keys_of(views))
            return per_kv_head(sums, len(views[0].keys))

        return of_all(views, ("columns", rows), looked)
