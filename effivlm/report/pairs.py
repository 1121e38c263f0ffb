"""Cells set against one other cell, dense or a control, on the samples that both answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from effivlm.metrics.discoveries import detectable, difference_p, spreads
from effivlm.metrics.resampling import Places, Resampling
from effivlm.metrics.statistics import (
    LEAST,
    Floats,
    Interval,
    ends,
    has_no_width,
    intervals,
    quotients,
    sign_p,
    stated,
)


@dataclass(frozen=True, slots=True)
class Pairs:
    """Each cell against one `other`, dense or a control, on the samples that both answered; `uneven`: they broke on different
    samples.

    `units`: how many groups of samples that are drawn together hold such samples.
    """

    other: int
    units: list[int]
    n: list[int]
    uneven: list[bool]
    shared_ratios: list[float | None]
    difference: list[float | None]
    better: list[int]
    worse: list[int]
    ratios: Floats
    ratio_intervals: list[Interval | None]
    difference_intervals: list[Interval | None]
    spreads: list[float | None]

    @classmethod
    def of(cls, resamples: Resampling, scores: Floats, draws: Floats, units: Places, place: int) -> Pairs:
        other = np.broadcast_to(scores[:, [place]], scores.shape)
        gaps = np.isnan(scores) | np.isnan(other)
        own_draws, other_draws = draws, np.broadcast_to(draws[:, [place]], draws.shape)
        answered = np.count_nonzero(~np.isnan(scores), axis=0)
        own = scores
        if gaps.any():
            own, other = np.where(gaps, np.nan, scores), np.where(gaps, np.nan, other)
            own_draws, other_draws = resamples.means(own), resamples.means(other)
        ratios = quotients(own_draws, other_draws)
        n = np.count_nonzero(~gaps, axis=0)
        gains = np.zeros((int(units.max()) + 1, scores.shape[1]))
        np.add.at(gains, units, own - other)  # by group; one that broke is NaN as a whole
        averages = list(zip(resamples.averages(own), resamples.averages(other), strict=True))
        counts = resamples.answered(own - other)
        gain_draws = own_draws - other_draws
        gained = intervals(gain_draws)
        differences = stated(gained, counts, -1, 1)
        return cls(
            other=place,
            units=counts,
            n=n.tolist(),
            uneven=(n < np.maximum(answered, answered[place])).tolist(),
            shared_ratios=[mine / theirs if mine is not None and theirs else None for mine, theirs in averages],
            difference=resamples.averages(own - other),
            better=np.count_nonzero(gains > 0, axis=0).tolist(),
            worse=np.count_nonzero(gains < 0, axis=0).tolist(),
            ratios=ratios,
            ratio_intervals=[
                _ratio_interval(*one) for one in zip(intervals(ratios), gained, counts, averages, strict=True)
            ],
            difference_intervals=differences,
            spreads=spreads(gain_draws),
        )

    def told(self, place: int, ratio: float | None, remarks: tuple[str, ...]) -> dict[str, Any]:
        """What the pairing tells of a cell; the ratio is over shared samples where some broke on one side."""
        if self.uneven[place]:
            ratio = self.shared_ratios[place]
            remarks = (*remarks, f"compared with dense on the {self.n[place]} samples that both answered")
        return {
            "ratio": ratio,
            "remarks": remarks,
            "ratio_interval": None if ratio is None or place == self.other else self.ratio_intervals[place],
            "ratio_draws": None if ratio is None or self.units[place] < LEAST else self.ratios[:, place],
            "paired": self.paired(place) if place != self.other else None,
        }

    def paired(self, place: int) -> dict[str, Any] | None:
        """What the pairing tells; `q`, which takes all comparisons of a report, is found when all are known."""
        if not self.n[place]:
            return None
        better, worse, units, spread = self.better[place], self.worse[place], self.units[place], self.spreads[place]
        return {
            "difference": self.difference[place],
            "interval": ends(self.difference_intervals[place]),
            "better": better,
            "worse": worse,
            "p": sign_p(better, worse),
            "mean_p": difference_p(self.difference[place], spread, units, better + worse),
            "q": None,
            "detectable": detectable(spread, units, better + worse),
            "n": self.n[place],
        }


def _ratio_interval(
    found: Interval | None, gained: Interval | None, n: int, averages: tuple[float | None, float | None]
) -> Interval | None:
    """Of a ratio of means over `n` samples, as it may be stated; `gained` is that of the difference as resamples have it.

    Where all resamples told the same, it is what the difference may be, or where that varies (an own score of 0) the own score,
    as a share of the other's mean.
    """
    own, other = averages
    if found is None or gained is None or own is None or not other or n < LEAST:
        return None
    if not has_no_width(found):
        return found
    (apart,) = stated([gained], [n], -1, 1) if has_no_width(gained) else [None]
    low, high = (other + apart[0], other + apart[1]) if apart else stated([(own, own)], [n], 0, 1)[0] or (own, own)
    return max(0.0, low) / other, min(1.0, high) / other
