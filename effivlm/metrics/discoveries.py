"""Which of many comparisons are discoveries: p-values of differences, Benjamini-Hochberg over a family, and what n could show.

A family is tested at a rate: of the comparisons that it calls different, at most that share are expected to be alike (Benjamini
and Hochberg 1995). That holds for comparisons that go up and down together, as those with one control do (Benjamini and
Yekutieli 2001).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import ndtri, stdtr

from effivlm.metrics.statistics import LEAST, LEVEL, NO_WIDTH, Floats

RATE = 1 - LEVEL
"""Of false discoveries among all of a family."""
Z = float(ndtri((1 + LEVEL) / 2))
"""Spreads from the middle of a normal interval to its ends."""
POWER = 0.8
"""How often a difference is seen that `detectable` calls large enough."""


def spreads(draws: Floats) -> list[float | None]:
    """Standard deviation of each column of draws (rounds, columns) over what is not NaN; None under two draws."""
    gaps = np.isnan(draws)
    counts = len(draws) - np.count_nonzero(gaps, axis=0)
    incomplete = gaps.any()
    known = np.where(gaps, 0.0, draws) if incomplete else draws
    averages = known.sum(axis=0) / np.maximum(counts, 1)
    apart = (known - averages) ** 2
    squares = (np.where(gaps, 0.0, apart) if incomplete else apart).sum(axis=0)
    found: list[float] = np.sqrt(squares / np.maximum(counts - 1, 1)).tolist()
    return [one if count > 1 else None for one, count in zip(found, counts.tolist(), strict=True)]


def difference_p(difference: float | None, spread: float | None, units: int, unlike: int) -> float | None:
    """Two-sided p-value of a mean difference over `units` groups, of which `unlike` differ at all; None under `LEAST` groups.

    Student's t of the difference over the spread of its resamples, which are paired and draw whole groups; never under
    2 ** (1 - unlike), the least that exchanging the two sides in each group can give.
    """
    if difference is None or spread is None or units < LEAST:
        return None
    if abs(difference) < NO_WIDTH:
        return 1.0
    found = 2 * float(stdtr(units - 1, -abs(difference) / spread)) if spread > NO_WIDTH else 0.0
    return min(1.0, max(found, 2.0 ** (1 - unlike)))


def adjusted(ps: Sequence[float | None]) -> list[float | None]:
    """By Benjamini-Hochberg, the least rate at which each comparison is a discovery of the family; None stays out of it."""
    there = [(p, place) for place, p in enumerate(ps) if p is not None]
    found: list[float | None] = [None] * len(ps)
    least = 1.0
    for rank, (p, place) in reversed(list(enumerate(sorted(there), start=1))):
        least = min(least, p * len(there) / rank)
        found[place] = least
    return found


def detectable(spread: float | None, units: int) -> float | None:
    """The smallest difference that as many samples show `POWER` of the time, compared alone at `LEVEL`; None where unknown.

    Where no two resamples differed, the share of samples unlike all others that would still be likely (the rule of three).
    """
    if spread is None or units < LEAST:
        return None
    if spread <= NO_WIDTH:
        return float(1 - (1 - LEVEL) ** (1 / units))
    return float((Z + ndtri(POWER)) * spread)


def one_sided_p(value: float, allowed: float, spread: float) -> float:
    """p-value of `value` lying above `allowed` by chance, normal with this spread; 0 or 1 where it has none."""
    if spread <= NO_WIDTH:
        return 0.0 if value > allowed else 1.0
    return 0.5 * math.erfc((value - allowed) / spread / math.sqrt(2))
