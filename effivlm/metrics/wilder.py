"""LLaVA-Bench (Wilder): a judge's two marks, the reference's and the model's, and their ratio (LLaVA-NeXT, 2024-05)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from effivlm.metrics.profiles import FIXED, Profile, compat

Marks = tuple[float, float]
FAILED: Marks = (-1.0, -1.0)
_DROPPED = -999.0
_BEST = 10.0


def wilder_marks(reply: str, profile: Profile = FIXED) -> Marks | None:
    """The reference's and the model's mark, the two numbers of the reply's first line; None (missing) if it has not two.

    They lie in [0, 10]; commas and any number of blanks may part them. `compat`: one comma or blank parts them ("10, 8" fails),
    any number is taken, and a failure is (-1, -1).
    """
    line = reply.split("\n")[0].replace(",", " ")
    if compat(profile):
        return _numbers(line.split(" ")) or FAILED
    found = _numbers(line.split())
    return found if found and all(0.0 <= mark <= _BEST for mark in found) else None


def wilder_ratio(marks: Sequence[Marks | None], profile: Profile = FIXED) -> float | None:
    """The model's marks by the reference's, 1 where they are as good; None where no pair is known or the reference has 0.

    Missing pairs, and those of a failed call (-1, -1), are left out of both. `compat` keeps (-1, -1) in both means, which
    lowers the ratio, leaves out pairs with -999, and rounds the means to three decimals and the percentage to one.
    """
    keeps = compat(profile)
    known = [pair for pair in marks if pair is not None and _DROPPED not in pair and (keeps or min(pair) >= 0)]
    if not known:
        return None
    reference = sum(first for first, _ in known) / len(known)
    model = sum(second for _, second in known) / len(known)
    if keeps:
        reference, model = round(reference, 3), round(model, 3)
    if not reference:
        return None
    return round(model / reference * 100, 1) / 100 if keeps else model / reference


def _numbers(words: Sequence[str]) -> Marks | None:
    if len(words) != 2:
        return None
    try:
        first, second = float(words[0]), float(words[1])
    except ValueError:
        return None
    return (first, second) if math.isfinite(first) and math.isfinite(second) else None
