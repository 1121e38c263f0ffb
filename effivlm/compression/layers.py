"""How many cache entries every layer keeps: all alike, a pyramid, or in proportion to how dense its attention is."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor

from effivlm.compression.base import CachePart, LayerView, alike, keys_of, of_all, question_rows
from effivlm.compression.budget import apportion
from effivlm.seams.columns import received_and_near_of_layers

LAYER_BUDGETS = ("uniform", "pyramid", "density")


def check(name: str, value: float, least: float, most: float = math.inf) -> None:
    """ValueError unless `value` of the field `name` lies in [least, most]."""
    if not least <= value <= most:
        allowed = f"at least {least:g}" if most == math.inf else f"between {least:g} and {most:g}"
        raise ValueError(f"{name} {value:g} must be {allowed}")


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """ValueError unless `value` of the field `name` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name} {value!r} is not one of {', '.join(choices)}")


@cache
def exact(share: float) -> Fraction:
    """The decimal that was meant: 0.29 of 100 is 29, which the nearest binary fraction misses."""
    return Fraction(str(share))


def pyramid(layers: int, mean: Fraction, beta: Fraction, high: int) -> list[Fraction]:
    """A straight line from layer 0 down to mean / beta in the last one, whose mean is `mean`; layer 0 stays within `high`."""
    if layers == 1:
        return [mean]
    last = mean / beta
    first = 2 * mean - last
    if first > high:
        first, last = Fraction(high), 2 * mean - high
    return [first - (first - last) * Fraction(layer, layers - 1) for layer in range(layers)]


def mixed(weights: Sequence[Fraction | float], uniform_share: Fraction) -> list[Fraction]:
    """Shares of the layers that sum to 1: `uniform_share` of them equal, the rest in proportion to `weights`."""
    ideal = [Fraction(weight) for weight in weights]
    total, count = sum(ideal), len(ideal)
    return [uniform_share / count + (1 - uniform_share) * weight / total for weight in ideal]


@dataclass(frozen=True, kw_only=True)
class LayeredCache(CachePart):
    """A cache method with a protected end and a choice of how the total is split over layers.

    The last `window` entries, or `window_share` of the budget where that is more, always stay. The share is one of the layer's
    own budget, or with `same_window` one of the uniform budget in every layer. `layer_budgets` splits layers * K: "uniform",
    "pyramid" (a line whose last layer holds 1 / `beta` of the mean) or "density" (in proportion to the attention entries of the
    question's rows that reach `density_threshold` of their row's largest, no layer under `density_floor` of the prompt, or under
    `floor_share` of the uniform budget where that is less: a floor as high as the budget would leave nothing to split);
    `uniform_share` of the total is split evenly whatever the rule. A window that is the same in all layers is set aside first.
    """

    rules: ClassVar[tuple[str, ...]] = LAYER_BUDGETS

    window: int = 0
    window_share: float = 0.0
    same_window: bool = False
    layer_budgets: str = "uniform"
    uniform_share: float = 0.0
    beta: float = 20.0
    density_threshold: float = 0.01
    density_floor: float = 0.01
    floor_share: float = 0.1

    def __post_init__(self) -> None:
        check("window", self.window, 0)
        check("window_share", self.window_share, 0, 1)
        check_choice("layer_budgets", self.layer_budgets, self.rules)
        check("uniform_share", self.uniform_share, 0, 1)
        check("beta", self.beta, 1)
        check("density_threshold", self.density_threshold, 0, 1)
        check("density_floor", self.density_floor, 0, 1)
        check("floor_share", self.floor_share, 0, 1)

    @property
    def waits(self) -> bool:
        return self.layer_budgets not in ("uniform", "pyramid")

    def rows(self, visual: Tensor) -> int:
        return question_rows(visual) if self.layer_budgets == "density" else 0

    def held(self, budget: int, length: int) -> int:
        """How many of the last entries always stay in a layer with this budget."""
        share = math.floor(exact(self.window_share) * budget) if self.window_share else 0
        return min(budget, length, max(self.window, share))

    def protected(self, budget: int, length: int) -> int:
        """`held` of the budget that the window is a share of."""
        return min(budget, self.held(self.keep.of(length) if self.same_window else budget, length))

    def budgets(self, views: Sequence[LayerView]) -> list[int]:
        lengths = [view.length for view in views]
        whole = [self.keep.of(length) for length in lengths]
        fixed = self.same_window or not self.window_share
        held = [self.held(pair[0], pair[1]) if fixed else 0 for pair in zip(whole, lengths, strict=True)]
        free, room = sum(whole) - sum(held), [length - part for length, part in zip(lengths, held, strict=True)]
        if self.layer_budgets == "uniform" or self.uniform_share == 1 or not free:
            return whole
        ideal, least = self.wanted(views, free, room)
        low = [max(0, needed - part) for needed, part in zip(least, held, strict=True)]
        if self.uniform_share:
            ideal = mixed(ideal, exact(self.uniform_share))
        shares = apportion(ideal, free, low, room)
        return [part + share for part, share in zip(held, shares, strict=True)]

    def wanted(
        self, views: Sequence[LayerView], free: int, room: Sequence[int]
    ) -> tuple[Sequence[Fraction | float], Sequence[int]]:
        """In which proportion layers share `free` entries, of which each has `room` for some, and the fewest of each."""
        if self.layer_budgets == "pyramid":
            return pyramid(len(views), Fraction(free, len(views)), exact(self.beta), min(room)), [1] * len(views)
        whole = [(self.keep.of(view.length), view.length) for view in views]
        return self._densities(views), [self._floor(budget, length) for budget, length in whole]

    def _densities(self, views: Sequence[LayerView]) -> list[float]:
        """How dense every layer's attention is. To know it is to wait for the device, once for all budgets."""

        def told() -> list[float]:
            groups = [views] if alike(views) else [[view] for view in views]
            return torch.cat([self.question(group)[1].mean(-1).cpu() for group in groups]).tolist()

        return of_all(views, ("density", self.density_threshold), told)

    def question(self, views: Sequence[LayerView]) -> tuple[Tensor, Tensor]:
        """Of layers that are alike: what the rows after the image look at [L, H_q, N], summed over them, and how dense that is
        [L, H_q]."""
        rows = views[0].question_rows
        return of_all(
            views,
            ("question", rows, self.density_threshold),
            lambda: received_and_near_of_layers(
                [view.queries[:, -rows:] for view in views], keys_of(views), self.density_threshold
            ),
        )

    def _floor(self, budget: int, length: int) -> int:
        """The fewest entries of a layer whose uniform share is `budget`; 2 where that is less."""
        least = min(exact(self.density_floor) * length, exact(self.floor_share) * budget)
        return min(budget, max(2, math.floor(least + Fraction(1, 2))))
