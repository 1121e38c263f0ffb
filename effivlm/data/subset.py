"""The part of a benchmark that a run asks: the same for every method, model and machine."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def subset(keys: Sequence[tuple[str, str]], limit: int, seed: int) -> list[int]:
    """Places of at least `limit` rows in a seeded order; all rows where there are no more.

    `keys` holds for each row its group and its stratum. Rows of one group (a pair, the rotations of a question, the questions
    about one picture) come together, in their own order, or not at all, so there may be a few rows more than `limit`. Strata
    ("" where there are none) are parts of which a benchmark reports a mean: they take turns, and a turn is ended, so that each
    has as many groups as the others while it lasts, and at least one. A longer subset begins with the shorter one of the
    same seed.

    Raises:
        ValueError: `limit` is under 1, or a group lies in two strata.
    """
    if limit < 1:
        raise ValueError(f"a subset has at least one sample, got limit {limit}")
    groups: dict[str, list[int]] = {}
    strata: dict[str, str] = {}
    for place, (group, stratum) in enumerate(keys):
        groups.setdefault(group, []).append(place)
        if strata.setdefault(group, stratum) != stratum:
            raise ValueError(f"group {group!r} lies in {strata[group]!r} and in {stratum!r}")
    turns: dict[str, int] = {}
    ranked = []
    for drawn, group in sorted((_drawn(seed, group), group) for group in groups):
        turn = turns[strata[group]] = turns.get(strata[group], -1) + 1
        ranked.append((turn, drawn, group))
    taken: list[int] = []
    begun = -1
    for turn, _, group in sorted(ranked):
        if len(taken) >= limit and turn > begun:
            break
        begun = turn
        taken += groups[group]
    return taken


def _drawn(seed: int, group: str) -> str:
    return hashlib.sha256(f"{seed}\0{group}".encode("utf-8", "surrogatepass")).hexdigest()
