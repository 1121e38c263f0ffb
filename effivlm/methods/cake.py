"""CAKE: layers whose attention is spread out and shifts get more of the cache."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

import torch
from torch import Tensor

from effivlm.compression.attention import per_kv_head
from effivlm.compression.base import LayerView, of_all
from effivlm.compression.choose import NO_ORDER
from effivlm.compression.layers import check
from effivlm.compression.stages import attention_of
from effivlm.methods.snapkv import SnapKv

TINY = 1e-10


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

    def look(self, view: LayerView) -> None:
        super().look(view)
        self._facts(view)

    def shown(self, views: Sequence[LayerView]) -> Tensor:
        return torch.stack([self._facts(view)[0] for view in views])

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
            parts = [self._facts(view)[1].cpu() for view in views]
            entropy, variance = torch.stack(parts).double().unbind(1)
            found: list[float] = (entropy ** (1 / self.tau1) * variance ** (1 / self.tau2)).tolist()
            if not all(map(math.isfinite, found)):
                raise ValueError(NO_ORDER)
            return found

        length = views[0].length
        return of_all(views, ("preferences", self.held(self.keep.of(length), length), self.tau1, self.tau2), told)

    def _facts(self, view: LayerView) -> tuple[Tensor, Tensor]:
        """Scores [H_kv, N] of a layer's entries, those of the window meaningless, and [2] its entropy and variance."""
        rows = self.held(self.keep.of(view.length), view.length)

        def looked() -> tuple[Tensor, Tensor]:
            last = torch.arange(view.length - rows, view.length, device=view.keys.device)
            attention = attention_of(view, last)
            mean, early = attention.mean(1), attention[:, :, : view.length - rows]
            varied = attention.var(1) if rows > 1 else torch.zeros_like(mean)
            entropy = -(early * (early + TINY).log()).sum()
            facts = torch.stack([entropy.clamp(min=0), varied[:, : view.length - rows].sum()])
            return per_kv_head(mean + self.gamma * varied, len(view.keys)), facts

        return view.once(("cake", rows, self.gamma), looked)
