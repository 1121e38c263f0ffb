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
    ideal, unit = _filled(shares, total, lows, highs)
    counts = [value // unit for value in ideal]
    order = sorted(range(count), key=lambda index: (-(ideal[index] % unit), index))
    open_places = [index for index in order if counts[index] < highs[index]]
    for index in open_places[: total - sum(counts)]:
        counts[index] += 1
    return counts


def _filled(weights: list[Fraction], total: int, lows: list[int], highs: list[int]) -> tuple[list[int], int]:
    """clip(level * weight, low, high) at the level where the sum is `total`; zero weights above their low share the rest.

    In whole numbers of 1 / the number beside them: a prompt waits for this, and fractions take several times as long.
    """
    scale = math.lcm(*(weight.denominator for weight in weights))
    whole = [weight.numerator * (scale // weight.denominator) for weight in weights]
    bounds = list(zip(lows, highs, strict=True))

    def at(level: Fraction) -> list[int]:
        times, unit = level.numerator, level.denominator
        return [min(max(times * w, a * unit), b * unit) for w, (a, b) in zip(whole, bounds, strict=True)]

    def reached(level: Fraction) -> Fraction:
        return Fraction(sum(at(level)), level.denominator)

    if sum(whole) == total * scale and all(
        a * scale <= w <= b * scale for w, (a, b) in zip(whole, bounds, strict=True)
    ):
        return whole, scale
    levels = sorted({Fraction(bound, w) for w, ends in zip(whole, bounds, strict=True) if w for bound in ends})
    place = bisect_left(levels, Fraction(total), key=reached)
    below = levels[place - 1] if place else Fraction(0)
    if place < len(levels):
        start, end = reached(below), reached(levels[place])
        part = Fraction(0) if end == start else (total - start) / (end - start)
        level = below + part * (levels[place] - below)
        return at(level), level.denominator
    full, unit = (
        at(below),
        below.denominator,
    )  # every weighted share is at its bound; the unweighted ones get what is left
    left = total * unit - sum(full)
    for index, weight in enumerate(whole):
        if not weight:
            extra = min(left, highs[index] * unit - full[index])
            full[index] += extra
            left -= extra
    return full, unit
