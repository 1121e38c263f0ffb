"""Resamples of a benchmark's samples, and what its score is in each of them: a mean over samples, over groups, or over parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from effivlm.metrics.statistics import Floats, means, weights

Places: TypeAlias = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Stratum:
    """Samples that are drawn among themselves: their `rows`, the `units` (from 0) they are drawn in, how much each `weighs`
    in the mean, and how often it stands in each resample, (rounds, rows)."""

    rows: Places
    units: Places
    weighs: Floats
    resamples: Floats

    def means(self, values: Floats) -> Floats:
        return means(self.resamples * self.weighs, values[self.rows])

    def averages(self, values: Floats) -> Floats:
        found: Floats = means(self.weighs[None, :], values[self.rows])[0]
        return found

    def answered(self, values: Floats) -> NDArray[np.intp]:
        """In how many units each column has a value."""
        told = np.zeros((int(self.units.max()) + 1, values.shape[1]), dtype=bool)
        np.logical_or.at(told, self.units, ~np.isnan(values[self.rows]))
        counts: NDArray[np.intp] = np.count_nonzero(told, axis=0)
        return counts


@dataclass(frozen=True, slots=True)
class Resampling:
    """Seeded resamples of the samples of one task, the same for all settings, so that what is made of them is paired.

    Samples of one unit (an image's questions, the rotations of one) are drawn together. Of a mean over parts every part is
    drawn by itself, with one draw fewer than it has units, which makes the bootstrap's variance of so few the right one
    (McCarthy and Snowden 1985, Vital and Health Statistics 2:95); a part of one unit has no variance, and no draws.
    """

    strata: tuple[Stratum, ...]

    @classmethod
    def of(cls, units: Places, seed: int, average: str = "samples", parts: Sequence[str] = ()) -> Resampling:
        """Resamples for a score that is a mean over "samples", over "groups" (units count alike, whatever their size), or over
        "parts" (parts count alike; `parts` names that of each sample)."""
        if average != "parts":
            sizes = np.bincount(units)[units] if average == "groups" else np.ones(len(units))
            resamples = weights(int(units.max()) + 1, [seed])[:, units]
            return cls((Stratum(np.arange(len(units)), units, 1 / sizes, resamples),))
        named = np.array(parts)
        found = []
        for number, part in enumerate(sorted(set(parts))):
            rows = np.flatnonzero(named == part)
            _, own = np.unique(units[rows], return_inverse=True)
            n = int(own.max()) + 1
            resamples = weights(n, [seed, number], draws=n - 1)[:, own]
            found.append(Stratum(rows, own, np.ones(len(rows)), resamples))
        return cls(tuple(found))

    @property
    def single(self) -> bool:
        """Whether a part has one unit only, so that nothing is known of its variance."""
        return len(self.strata) > 1 and any(one.units.max() == 0 for one in self.strata)

    def means(self, values: Floats) -> Floats:
        """The score in each resample, (rounds, columns), of values (samples, columns); NaN as in `statistics.means`."""
        if len(self.strata) == 1:
            return self.strata[0].means(values)
        return self._over([one.means(values) for one in self.strata], values)

    def averages(self, values: Floats) -> list[float | None]:
        """The score of each column of values (samples, columns) as it is; None where nothing is left."""
        found: list[float] = self._over([one.averages(values) for one in self.strata], values).tolist()
        return [None if np.isnan(one) else one for one in found]

    def answered(self, values: Floats) -> list[int]:
        """How many units each column has a value in; of a mean over parts, the number of parts times the units of the
        smallest, which tell no more than so many together."""
        counts = np.stack([one.answered(values) for one in self.strata])
        least = np.where(counts > 0, counts, np.iinfo(np.intp).max).min(axis=0)
        found: list[int] = np.where(counts.any(axis=0), np.count_nonzero(counts, axis=0) * least, 0).tolist()
        return found

    def _over(self, found: Sequence[Floats], values: Floats) -> Floats:
        """Mean over those parts in which a column has a value."""
        there = np.stack([~np.isnan(values[one.rows]).all(axis=0) for one in self.strata])
        total = sum(np.where(here, one, 0.0) for here, one in zip(there, found, strict=True))
        counts = there.sum(axis=0).astype(np.float64)
        whole = np.broadcast_to(counts, np.shape(total))
        over: Floats = np.divide(total, whole, out=np.full(np.shape(total), np.nan), where=whole > 0)
        return over
