"""CAKE: layers whose attention is spread out and shifts get more of the cache."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby
from typing import Any, ClassVar

import torch
from torch import Tensor

from effivlm.compression.attention import per_kv_head
from effivlm.compression.base import LayerView, of_all
from effivlm.compression.choose import NO_ORDER
from effivlm.compression.layers import check
from effivlm.compression.stages import attention_of_layers
from effivlm.methods.snapkv import SnapKv

TINY = 1e-10
MOST = 1 << 26
"""Attention weights that are held at once: layers are looked at together as far as theirs fit."""


@dataclass(frozen=True, kw_only=True)
class Cake(SnapKv):
    """Share the cache among layers by how spread out their attention is and how it shifts (arXiv 2503.12491, ICLR 2025).

    Of the attention that the last `window` rows pay to all before them, a layer's preference is entropy^(1 / `tau1`) times
    variance^(1 / `tau2`): the entropy of all rows and heads, and the variance over the rows, summed over entries and heads.
    What is left of layers * K beside the windows is split in proportion. An entry's score is the mean of its attention over the
    rows plus `gamma` times its variance, smoothed and averaged over the query heads of a KV head.

    Differs from the paper:
    - layers get whole numbers by largest remainder, none more than it has, so that they sum to layers * K; the authors' code
      rounds each down and hands what is missing or beyond the prompt out evenly;
    - tau1 and tau2 are 1, what the authors' code takes for models it has no values for (it has been tuned to five);
    - all layers are compressed at the end of the prefill, which keeps the same entries as evicting after every layer does;
    - nothing is evicted while decoding; as in `snapkv`: K is a share of the prompt, and the window shrinks with it.
    """

    of: ClassVar[str] = "prompt entries"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {}}
    rules: ClassVar[tuple[str, ...]] = ("uniform", "preference")

    kernel: int = 5
    pool: str = "avg"
    layer_budgets: str = "preference"
    tau1: float = 1.0
    tau2: float = 1.0
    gamma: float = 200.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check("gamma", self.gamma, 0)
        for name in ("tau1", "tau2"):
            if not 0 < (value := getattr(self, name)) < math.inf:
                raise ValueError(f"{name} {value:g} must be more than 0 and finite: its inverse is an exponent")

    def shown(self, views: Sequence[LayerView]) -> Tensor:
        return torch.stack([scores for scores, _ in self._facts(views)])

    def wanted(
        self, views: Sequence[LayerView], free: int, room: Sequence[int]
    ) -> tuple[Sequence[Fraction | float], Sequence[int]]:
        preferences = self.preferences(views)
        return (preferences if any(preferences) else [1.0] * len(views)), [0] * len(views)

    def preferences(self, views: Sequence[LayerView]) -> list[float]:
        """How much of the cache every layer asks for; to know it is to wait for the device, once for all budgets.

        Raises:
            ValueError: attention holds NaN.
        """

        def told() -> list[float]:
            facts, home = [facts for _, facts in self._facts(views)], views[0].keys.device
            entropy, variance = torch.stack([one.to(home) for one in facts]).cpu().double().unbind(1)
            found: list[float] = (entropy ** (1 / self.tau1) * variance ** (1 / self.tau2)).tolist()
            if not all(map(math.isfinite, found)):
                raise ValueError(NO_ORDER)
            return found

        length = views[0].length
        return of_all(views, ("preferences", self.held(self.keep.of(length), length), self.tau1, self.tau2), told)

    def _facts(self, views: Sequence[LayerView]) -> list[tuple[Tensor, Tensor]]:
        """Of each layer scores [H_kv, N] of its entries, those of the window meaningless, and [2] its entropy and variance."""

        lengths = {view.length: self.held(self.keep.of(view.length), view.length) for view in views}

        def looked() -> list[tuple[Tensor, Tensor]]:
            found = list[tuple[Tensor, Tensor]]()
            for (length, _), alike in groupby(views, lambda view: (view.length, view.keys.device)):
                several = [*alike]
                some = max(1, MOST // (len(several[0].queries) * lengths[length] * length))
                for start in range(0, len(several), some):
                    found += zip(*self._looked(several[start : start + some], lengths[length]), strict=True)
            return found

        return of_all(views, ("cake", *lengths.values(), self.gamma), looked)

    def _looked(self, views: Sequence[LayerView], rows: int) -> tuple[Tensor, Tensor]:
        """The same of layers that are alike, [L, H_kv, N] and [L, 2], by the attention of their last `rows`."""
        early = views[0].length - rows
        attention = attention_of_layers(views, torch.arange(early, views[0].length, device=views[0].keys.device))
        mean, before = attention.mean(2), attention[..., :early]
        varied = attention.var(2) if rows > 1 else torch.zeros_like(mean)
        entropy = -(before * (before + TINY).log()).sum((1, 2, 3))
        facts = torch.stack([entropy.clamp(min=0), varied[..., :early].sum((1, 2))], 1)
        return per_kv_head(mean + self.gamma * varied, len(views[0].keys)), facts
