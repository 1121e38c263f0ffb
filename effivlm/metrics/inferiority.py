"""Non-inferiority of paired scores: by how much the mean may have fallen at most, from few groups of samples.

Draws of the mean loss give every group of samples a random share (a Bayesian bootstrap), and one more group that is not there and
lost all that can be lost: with right and wrong answers the bound is that of Clopper and Pearson (1934), in general that of Gaffke
(2004), https://arxiv.org/abs/1905.06208. A plain bootstrap is too sure of itself where losses are rare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from effivlm.metrics.statistics import Floats

ROUNDS = 10_000
CHUNK = 1_000_000  # shares drawn at a time
WORST = 1.0
"""The largest loss of a score in [0, 1]."""


@dataclass(frozen=True, slots=True)
class Losses:
    """What each group of samples lost (before - after, summed over its samples by their weight), and those weights' sums; the
    groups of one part of a benchmark. A benchmark's loss is the mean over its parts.

    The `seed` of its draws is its own, so that it has the same ones by itself and in a mean with others.
    """

    lost: Floats
    weight: Floats
    seed: tuple[int, ...]

    @classmethod
    def of(cls, lost: Sequence[float], groups: Sequence[str], seed: tuple[int, ...], alike: bool = False) -> Losses:
        """From the loss of each sample; `alike`: a group counts as one, whatever its size."""
        _, places = np.unique(np.array(groups), return_inverse=True)
        sums: Floats = np.bincount(places, np.array(lost, dtype=np.float64)).astype(np.float64)
        counts: Floats = np.bincount(places).astype(np.float64)
        return cls(sums / counts, np.ones(len(counts)), seed) if alike else cls(sums, counts, seed)

    @property
    def mean(self) -> float:
        return float(self.lost.sum() / self.weight.sum())

    def draws(self, worst: float = WORST) -> Floats:
        """`ROUNDS` draws of the mean with one more group, of the largest size, whose samples all lost `worst`.

        That is the most by which a group can raise the mean; one of the usual size would hide that large groups lose.
        """
        size = self.weight.max()
        lost, weight = np.append(self.lost, worst * size), np.append(self.weight, size)
        rng, found = np.random.default_rng(self.seed), []
        for rounds in _chunks(ROUNDS, max(1, CHUNK // len(lost))):
            shares = rng.standard_exponential((rounds, len(lost)))
            found.append((shares @ lost) / (shares @ weight))
        return np.concatenate(found)


@dataclass(frozen=True, slots=True)
class Bound:
    """The mean loss with its one-sided ends: `upper` is exceeded by the true one with a chance of 1 - level at most, and so is
    `lower` from below. `p` is that of losing `margin` or more, `p_worse` that of losing `margin` or less."""

    value: float
    lower: float
    upper: float
    p: float
    p_worse: float


def bound(parts: Sequence[Losses], weighs: Sequence[float], margin: float, level: float) -> Bound:
    """Of the mean over `parts`, which weigh so much, and whose seeds differ; ValueError without one."""
    if not parts:
        raise ValueError("nothing was lost or kept: there are no samples")
    most, least = (
        np.average([part.draws(worst) for part in parts], axis=0, weights=weighs) for worst in (WORST, -WORST)
    )
    return Bound(
        value=float(np.average([part.mean for part in parts], weights=weighs)),
        lower=float(np.quantile(least, 1 - level)),
        upper=float(np.quantile(most, level)),
        p=_share(int(np.count_nonzero(most >= margin))),
        p_worse=_share(int(np.count_nonzero(least <= margin))),
    )


def _share(count: int) -> float:
    """Of the draws that tell, the observed one counted among them."""
    return (count + 1) / (ROUNDS + 1)


def _chunks(total: int, size: int) -> list[int]:
    return [min(size, total - begun) for begun in range(0, total, size)]
