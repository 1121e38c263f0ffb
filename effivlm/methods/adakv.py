"""Ada-KV: heads that look at many entries get more of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from effivlm.compression.base import LayerView, alike, taken
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

    @property
    def waits(self) -> bool:
        return True

    def layers(self, views: Sequence[LayerView], budgets: Sequence[int], sample_id: str) -> list[KeptLayer]:
        """Heads of a layer keep different numbers of entries, so no layer has one tensor of them."""
        if alike(views, budgets):
            places, counts = self._heads(views, budgets[0])
        else:
            found = [self._heads([view], budget) for view, budget in zip(views, budgets, strict=True)]
            places, counts = [one[0][0] for one in found], [one[1][0] for one in found]
        return [
            replace(layer, lengths=tuple(lengths) if len(set(lengths)) > 1 else None)
            for layer, lengths in zip(taken(views, places), counts, strict=True)
        ]

    def _heads(self, views: Sequence[LayerView], budget: int) -> tuple[list[Tensor], list[list[int]]]:
        """Of layers that are alike: the entries [H, K] that each head keeps, ascending and filled up with 0, and how many."""
        window = self.protected(budget, views[0].length)
        early = views[0].length - window
        scores = self.ranked(views, [early] * len(views))[..., :early]
        shares = self.shares(scores, budget - window)
        rows = best_of_each(scores.flatten(0, 1), [share for layer in shares for share in layer])
        found, device = pad_sequence(rows, batch_first=True), scores.device
        steps = torch.arange(found.shape[1] + window, device=device)
        few = torch.tensor(shares).to(device, non_blocking=True).flatten()[:, None]
        # behind the chosen ones of a head come the recent ones, then nothing
        places = pad(found, (0, window)).where(steps < few, early + steps - few).where(steps < few + window, 0)
        counts = [[share + window for share in layer] for layer in shares]
        layers = zip(places.unflatten(0, (len(views), -1)), counts, strict=True)
        return [layer[:, : max(kept)] for layer, kept in layers], counts

    def shares(self, scores: Tensor, equal: int) -> list[list[int]]:
        """How many entries each head of each layer keeps by its scores [L, H, n], `equal` on average."""
        layers, heads, early = scores.shape
        total, alpha = heads * equal, exact(self.alpha)
        if not total:
            return [[0] * heads] * layers
        if self.floor == "lower_bound":
            certain = best(scores, int(alpha * equal))
            scores = scores.scatter(2, certain, torch.inf)
        owners = best(scores.flatten(1), total) // early
        found = torch.zeros(layers, heads, dtype=torch.long, device=scores.device)
        counts: list[list[int]] = found.scatter_add_(1, owners, torch.ones_like(owners)).tolist()
        if self.floor == "lower_bound":
            return counts
        return [apportion([(1 - alpha) * n + alpha * equal for n in layer], total, high=early) for layer in counts]
