"""How much worse one measurement is than another: paired drops of scores, ratios of medians; seeded intervals."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effivlm.metrics.discoveries import Z, effective, one_sided_p, spreads
from effivlm.metrics.resampling import Resampling
from effivlm.metrics.statistics import ROUNDS, Floats, Interval, has_no_width, interval
from effivlm.report.baseline import Measured


@dataclass(frozen=True, slots=True)
class Change:
    """A drop of a score (before - after) or a ratio of costs (after / before).

    `interval` is None where too little was measured for one; `how`: paired, unpaired or rounds. `units`: how many groups of
    samples were drawn, infinity where that is not known.
    """

    before: float
    after: float
    value: float
    interval: Interval | None
    how: str
    n: int
    draws: Floats | None = None
    units: float = math.inf

    def worse_than(self, allowed: float) -> bool:
        """Whether even the mild end of the interval lies beyond what is allowed."""
        return self.interval is not None and self.interval[0] > allowed

    def p(self, allowed: float) -> float | None:
        """One-sided p-value of lying beyond what is allowed; None for what is counted, and where nothing changed beyond it."""
        if self.interval is None:
            return None
        if has_no_width(self.interval) and (self.how != "paired" or self.value <= allowed):
            return None
        return one_sided_p(self.value, allowed, max(0.0, self.value - self.interval[0]) / Z, self.units)

    def undecided(self, allowed: float) -> bool:
        """Whether it looks worse than allowed and its interval, if there is one, does not tell."""
        return self.value > allowed and not self.worse_than(allowed)


def score_drop(before: Measured, after: Measured) -> Change | None:
    """Drop of the score over the samples that both answered, averaged as the task's score is, whole groups drawn together.

    Unpaired where a side has no scores of single samples: its interval spans the ends of both, so it is wider, never
    narrower. None where no sample was answered on both sides.
    """
    if not before.ids or not after.ids:
        return _unpaired(before.data, after.data)
    theirs = dict(zip(after.ids, after.scores, strict=True))
    shared = [(one, old, theirs.get(one)) for one, old in zip(before.ids, before.scores, strict=True)]
    pairs = [(one, old, new) for one, old, new in shared if old is not None and new is not None]
    if not pairs:
        return None
    side = before if before.units or not after.units else after  # a baseline of before pictures were told knows less
    drawn_with = dict(zip(side.ids, side.drawn_with, strict=True))
    names = tuple(drawn_with[one] for one, _, _ in pairs)
    scores = np.array([[old, new] for _, old, new in pairs])
    gaps = scores[:, [0]] - scores[:, [1]]
    parts = dict(zip(before.ids, before.places, strict=True)) if before.places else {}
    named = tuple(parts.get(one, "") for one, _, _ in pairs)
    resamples = _resampling(names, before.average, named, zlib.crc32(str(before.data["task"]).encode()))
    old, new, value = (average or 0.0 for average in resamples.averages(np.hstack([scores, gaps])))
    units = resamples.answered(gaps)[0]  # the bootstrap of one group knows nothing
    draws = resamples.means(gaps)[:, 0] if units > 1 and not resamples.single else None
    return Change(old, new, value, None if draws is None else interval(draws), "paired", len(pairs), draws, units)


@lru_cache(maxsize=2)
def _resampling(names: tuple[str, ...], average: str, parts: tuple[str, ...], seed: int) -> Resampling:
    """One set of resamples serves all cells of a task: they are compared one after the other."""
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    return Resampling.of(np.array([places[name] for name in names]), seed, average, parts)


def _unpaired(before: Mapping[str, Any], after: Mapping[str, Any]) -> Change | None:
    old, new = before["score"], after["score"]
    if old is None or new is None:
        return None
    ends = (before["interval"], after["interval"])
    bounds = (ends[0][0] - ends[1][1], ends[0][1] - ends[1][0]) if all(ends) else None
    return Change(old, new, old - new, bounds, "unpaired", min(before["n"], after["n"]))


def pooled_drop(changes: Sequence[Change]) -> Change | None:
    """Mean drop over cells, each weighing the same; None under two paired cells."""
    draws = [change.draws for change in changes if change.draws is not None]
    if len(draws) < 2 or len(draws) < len(changes):
        return None
    old, new, value = (
        float(np.mean([getattr(change, name) for change in changes])) for name in ("before", "after", "value")
    )
    every = np.stack(draws)
    units = effective([(spread or 0.0) ** 2 for spread in spreads(every.T)], [int(change.units) for change in changes])
    whole, n = every.mean(axis=0), sum(change.n for change in changes)
    return Change(old, new, value, interval(whole), "paired", n, units=units)


def cost_ratio(before: Sequence[float], after: Sequence[float], name: str) -> Change | None:
    """Ratio of the medians after / before; above 1 is dearer. None where the median before is 0 or a side is empty.

    `name` seeds the resamples of rounds. Bytes are counted, not timed: one round of them is certain.
    """
    if not before or not after or median(before) <= 0:
        return None
    old, new = float(median(before)), float(median(after))
    bounds = (new / old, new / old) if name.endswith("_bytes") else None
    if len(before) > 1 and len(after) > 1:
        seed = zlib.crc32(name.encode())
        medians = [_medians(rounds, seed + side) for side, rounds in enumerate((before, after))]
        bounds = interval(medians[1] / np.where(medians[0] > 0, medians[0], np.nan))
    return Change(old, new, new / old, bounds, "rounds", min(len(before), len(after)))


def _medians(rounds: Sequence[float], seed: int) -> Floats:
    """Medians of resamples of `rounds`, by their ranks: of sorted rounds the middle ranks are the middle values."""
    low, high = _middles(len(rounds), seed)
    ordered = np.sort(np.array(rounds, dtype=np.float64))
    medians: Floats = (ordered[low] + ordered[high]) / 2
    return medians


@lru_cache(maxsize=64)
def _middles(n: int, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The two middle ranks of each resample of `n` rounds; equal where `n` is odd."""
    ranks = np.sort(np.random.default_rng([seed]).integers(0, n, (ROUNDS, n)), axis=1)
    return ranks[:, (n - 1) // 2], ranks[:, n // 2]
