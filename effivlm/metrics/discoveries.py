"""Which of many comparisons are discoveries: p-values of differences, Benjamini-Hochberg over a family, and what n could show.

A family is tested at a rate: of the comparisons that it calls different, at most that share are expected to be alike (Benjamini
and Hochberg 1995). That holds for comparisons that go up and down together, as those with one control do (Benjamini and
Yekutieli 2001).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy.special import betaincinv, ndtr, ndtri, stdtr, stdtrit

from effivlm.metrics.statistics import LEAST, LEVEL, NO_WIDTH, Floats

RATE = round(1 - LEVEL, 12)
"""Of false discoveries among all of a family."""
Z = float(ndtri((1 + LEVEL) / 2))
"""Spreads from the middle of a normal interval to its ends."""
POWER = 0.8
"""How often a difference is seen that `detectable` calls large enough."""
PROOF = 1 + math.ceil(-math.log2(RATE))
"""Groups that have to differ, all alike, before a comparison is a discovery: exchanging the two sides gives 2 ** (1 - groups)."""


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


def effective(variances: Sequence[float], units: Sequence[int]) -> float:
    """How many groups tell as much of the sum of independent parts as those of all parts: one more than its degrees of freedom.

    Each part has the variance and the number of groups given (Satterthwaite 1946, Biometrics Bulletin 2:110). No fewer than the
    smallest part has, no more than all together; the smallest part's where nothing varies. ValueError without a part.
    """
    least = min(units)
    total = math.fsum(variances)
    if total <= 0 or least < 2:
        return float(least)
    return 1 + total**2 / math.fsum(one**2 / (n - 1) for one, n in zip(variances, units, strict=True))


def difference_p(difference: float | None, spread: float | None, units: float, unlike: int) -> float | None:
    """Two-sided p-value of a mean difference over `units` groups, of which `unlike` differ at all; None under `LEAST` groups.

    Student's t, the standard error from the spread of the resamples, which are paired and draw whole groups; never under
    2 ** (1 - unlike), the least that exchanging the two sides in each group can give.
    """
    if difference is None or spread is None or units < LEAST:
        return None
    if abs(difference) < NO_WIDTH:
        return 1.0
    found = 2 * float(stdtr(units - 1, -abs(difference) / _error(spread, units))) if spread > NO_WIDTH else 0.0
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


def detectable(spread: float | None, units: float, unlike: int | None = None) -> float | None:
    """The smallest difference that as many samples show `POWER` of the time, compared alone at `LEVEL`; None where none is.

    By Student's t. Of a difference of scores, `unlike` groups differ so far: where they are so few that one more time would often
    bring fewer than `PROOF`, and where resamples did not differ, it takes what brings as many that often if each differs by a
    whole score. Without `unlike` nothing is known where resamples did not differ.
    """
    if spread is None or units < LEAST or (unlike is None and spread <= NO_WIDTH):
        return None
    found = _distance(units) * _error(spread, units)
    if unlike is None:
        return found
    if units < PROOF:
        return None
    share = _share(units)
    return found if spread > NO_WIDTH and unlike >= share * units else max(found, share)


@lru_cache(maxsize=4096)
def _distance(units: float) -> float:
    """Standard errors that a difference over so many groups has to be, for Student's t to show it `POWER` of the time."""
    return float(stdtrit(units - 1, (1 + LEVEL) / 2) + stdtrit(units - 1, POWER))


@lru_cache(maxsize=4096)
def _share(units: float) -> float:
    """The share of groups that have to differ, for `PROOF` of them to do so `POWER` of the time."""
    return float(betaincinv(PROOF, units - PROOF + 1, POWER))


def one_sided_p(value: float, allowed: float, spread: float, units: float = math.inf) -> float:
    """p-value of `value` lying above `allowed` by chance, over `units` groups: Student's t, or normal of unknown many.

    Where no two resamples differ, all groups changed alike: of right and wrong answers that truly stay as they are at most one
    in four changes to one side, so it is no more than 4 ** -units.
    """
    if spread <= NO_WIDTH:
        return float(4.0**-units) if value > allowed else 1.0
    distance = (value - allowed) / _error(spread, units)
    return float(stdtr(units - 1, -distance) if math.isfinite(units) else ndtr(-distance))


def _error(spread: float, units: float) -> float:
    """The standard error of a mean over `units` groups from the spread of its resamples, which is too small by one group."""
    return spread / math.sqrt(1 - 1 / units)
