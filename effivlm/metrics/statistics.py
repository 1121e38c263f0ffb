"""Intervals and tests over samples, seeded; None is counted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr

Floats: TypeAlias = NDArray[np.float64]
Interval: TypeAlias = tuple[float, float]
ROUNDS = 1000
LEVEL = 0.95
LEAST = 5
"""The fewest samples that get an interval: of four there are 35 distinct resamples, so that a tail of 2.5 % is less than one."""
NO_WIDTH = 1e-9


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over samples with its bootstrap interval; `interval` is None under two samples."""

    value: float | None
    interval: Interval | None
    n: int
    missing: int


def bootstrap_mean(
    values: Sequence[float | None], seed: int = 0, rounds: int = ROUNDS, level: float = LEVEL
) -> Estimate:
    """Percentile bootstrap of a mean; where all values are equal the interval has no width, whatever n is."""
    present: Floats = np.array([value for value in values if value is not None], dtype=np.float64)
    n, missing = len(present), len(values) - len(present)
    if not n:
        return Estimate(None, None, 0, missing)
    draws = means(weights(n, seed, rounds), present[:, None])
    return Estimate(float(present.mean()), interval(draws[:, 0], level) if n > 1 else None, n, missing)


def sign_p(better: int, worse: int) -> float:
    """Two-sided exact binomial p-value of `better` against `worse` under a fair coin; 1 without either.

    Of right and wrong scores this is McNemar's exact test. Ties are left out: they carry no evidence.
    """
    return min(1.0, 2 * float(bdtr(min(better, worse), better + worse, 0.5)))


def median_interval(rounds: Sequence[float], level: float = LEVEL) -> Interval | None:
    """Distribution-free interval of a median: two order statistics. None under the rounds it needs (six for 95 %)."""
    rank = _median_rank(len(rounds), level)
    if rank is None:
        return None
    ordered = sorted(rounds)
    return ordered[rank], ordered[len(ordered) - 1 - rank]


@lru_cache(maxsize=4096)
def _median_rank(n: int, level: float) -> int | None:
    """The largest rank from either end (0: the extremes) whose tails hold at most 1 - level; None if none does."""
    tails = 2 * bdtr(np.arange(n // 2), n, 0.5)
    held = int(np.count_nonzero(tails <= 1 - level))
    return held - 1 if held else None


def weights(n: int, seed: int | Sequence[int], rounds: int = ROUNDS, draws: int | None = None) -> Floats:
    """How often each of `n` samples stands in each resample of `draws` (default: `n`), (rounds, n); one matrix serves all
    settings of a group."""
    picked = np.random.default_rng(seed).integers(0, n, size=(rounds, n if draws is None else draws))
    flat = picked + np.arange(rounds)[:, None] * n
    return np.bincount(flat.ravel(), minlength=rounds * n).reshape(rounds, n).astype(np.float64)


def means(resamples: Floats, values: Floats) -> Floats:
    """Means by resample, (rounds, columns), of values (n, columns); NaN: a missing value, a resample of none.

    Each is over as much as stands in the resample, which is not the same in all of them where whole groups are drawn. A column
    lies in one piece of memory, as `intervals` and whoever keeps one column read it.
    """
    gaps = np.isnan(values)
    if not gaps.any():
        sizes = resamples.sum(axis=1)
        return quotients(values.T @ resamples.T, sizes).T
    counts = (~gaps).astype(np.float64).T @ resamples.T
    totals = np.where(gaps, 0.0, values).T @ resamples.T
    return quotients(totals, counts).T


def quotients(values: Floats, others: Floats) -> Floats:
    """values / others; NaN where the other is not above 0."""
    there = others > 0
    if there.all():
        found: Floats = values / others
        return found
    found = np.full(np.broadcast_shapes(values.shape, others.shape), np.nan)
    np.divide(values, others, out=found, where=there)
    return found


def column_means(values: Floats) -> list[float | None]:
    """Mean of each column of values (n, columns) over what is not NaN; None where nothing is left."""
    averages: list[float] = means(np.ones((1, len(values))), values)[0].tolist()
    return [None if math.isnan(average) else average for average in averages]


def interval(draws: Floats, level: float = LEVEL) -> Interval | None:
    """Percentile interval of draws (rounds,), as `intervals` finds it."""
    return intervals(draws[:, None], level)[0]


def intervals(draws: Floats, level: float = LEVEL) -> list[Interval | None]:
    """Percentile interval of each column of draws (rounds, columns).

    An undefined draw (NaN: a resample in which dense scored 0) might lie anywhere, so it counts as beyond both ends;
    where more than one tail of them is undefined, there is no interval.
    """
    rounds = len(draws)
    cut = int(rounds * (1 - level) / 2)
    columns = draws.T  # in one piece each, as `means` leaves them
    ordered = np.partition(columns, (cut, rounds - 1 - cut), axis=1)  # NaN goes last
    found: list[list[float]] = ordered[:, [cut, rounds - 1 - cut]].tolist()
    undefined: list[int] = np.count_nonzero(np.isnan(columns), axis=1).tolist()
    return [
        (low, high)
        if not gaps
        else None
        if gaps > cut
        else (float(np.partition(draws[:, place], cut - gaps)[cut - gaps]), high)
        for place, ((low, high), gaps) in enumerate(zip(found, undefined, strict=True))
    ]


def stated(found: Sequence[Interval | None], n: Sequence[int], low: float, high: float) -> list[Interval | None]:
    """Bootstrap intervals of means over `n` values in [low, high] as they may be stated.

    None under `LEAST` values. Where all values were equal the bootstrap knows nothing: values unlike them may make up to
    1 - 0.05 ** (1 / n) of all (about 3 / n, the rule of three), and the mean moves by no more than that share of the way to
    either end.
    """
    return [
        None if one is None or count < LEAST else _widened(one, count, low, high) if has_no_width(one) else one
        for one, count in zip(found, n, strict=True)
    ]


def has_no_width(interval: Interval) -> bool:
    """Whether all resamples told the same; an interval without a width is no statement."""
    return interval[1] - interval[0] < NO_WIDTH


def _widened(interval: Interval, n: int, low: float, high: float) -> Interval:
    value, unlike = sum(interval) / 2, 1 - (1 - LEVEL) ** (1 / n)
    return value - unlike * (value - low), value + unlike * (high - value)


def ends(interval: Interval | None) -> list[float] | None:
    """An interval as JSON holds it."""
    return None if interval is None else list(interval)
