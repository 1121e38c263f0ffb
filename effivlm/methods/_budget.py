"""Splitting a whole number of entries among layers, heads, images or rows so that the total is exact."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from fractions import Fraction


def apportion(
    weights: Sequence[Fraction | int | float],
    total: int,
    low: Sequence[int] | int = 0,
    high: Sequence[int] | int | None = None,
) -> list[int]:
    """Shares proportional to `weights`, each within its bounds, that sum to `total` exactly.

    Water-filling in rationals, then largest remainder: every share lies less than one from its ideal; ties go to the
    earlier one.

    Raises:
        ValueError: bounds and total exclude each other, or weights are negative, not finite or all zero.
    """
    shares = [Fraction(weight) for weight in weights]
    count = len(shares)
    lows = [low] * count if isinstance(low, int) else list(low)
    highs = [total] * count if high is None else [high] * count if isinstance(high, int) else list(high)
    if any(weight < 0 for weight in shares) or (count and not any(shares)):
        raise ValueError(f"weights must not be negative and not all be zero: {list(weights)}")
    if any(below > above for below, above in zip(lows, highs, strict=True)) or not sum(lows) <= total <= sum(highs):
        raise ValueError(f"{total} cannot be split into shares between {lows} and {highs}")
    ideal = _filled(shares, total, lows, highs)
    counts = [math.floor(value) for value in ideal]
    order = sorted(range(count), key=lambda index: (counts[index] - ideal[index], index))
    open_places = [index for index in order if counts[index] < highs[index]]
    for index in open_places[: total - sum(counts)]:
        counts[index] += 1
    return counts


def _filled(weights: list[Fraction], total: int, lows: list[int], highs: list[int]) -> list[Fraction]:
    """clip(level * weight, low, high) at the level where the sum is `total`; zero weights above their low share the rest."""

    def at(level: Fraction) -> list[Fraction]:
        return [min(max(level * w, Fraction(a)), Fraction(b)) for w, a, b in zip(weights, lows, highs, strict=True)]

    if sum(weights, Fraction(0)) == total and all(a <= w <= b for w, a, b in zip(weights, lows, highs, strict=True)):
        return weights
    levels = sorted(
        {Fraction(bound) / w for w, a, b in zip(weights, lows, highs, strict=True) if w for bound in (a, b)}
    )
    place = bisect_left(levels, Fraction(total), key=lambda level: sum(at(level), Fraction(0)))
    below = levels[place - 1] if place else Fraction(0)
    if place < len(levels):
        start, end = sum(at(below)), sum(at(levels[place]))
        part = Fraction(0) if end == start else Fraction(total - start) / Fraction(end - start)
        return at(below + part * (levels[place] - below))
    full = at(below)  # every weighted share is at its bound; what is left goes to the unweighted ones in order
    left = Fraction(total - sum(full))
    for index, weight in enumerate(weights):
        if not weight:
            extra = min(left, highs[index] - full[index])
            full[index] += extra
            left -= extra
    return full
