"""Compositions of methods against each of their methods alone: does together cost more than one and the other do?

A method alone loses dense's score minus its own. Where losses add up, a composition has dense's score less all of them; what it
has beyond that lies below 0 where it loses more than its methods together. On a task it is a mean over samples, paired: own
score, less those of the methods alone, plus dense's for each method but one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from effivlm.metrics.discoveries import RATE, detectable, difference_p, spreads
from effivlm.metrics.resampling import Places, Resampling
from effivlm.metrics.statistics import NO_WIDTH, Floats, ends, intervals, stated
from effivlm.records import Budget, Cell, Outcome
from effivlm.registry import open_methods
from effivlm.spelling import joined, read

MORE, LESS, OPEN, FEW = "loses more", "loses less", "open", "n too small"
"""What a composition comes to beside its methods together; one that is no discovery among all of a report is open."""
ALONE, UNLIKE = "not run alone", "not comparable"
"""Why there is nothing to say: a method did not run by itself, or something has no ratio to dense."""
NUMBERS = ("difference", "interval", "better", "worse", "mean_p", "q", "detectable")


def methods_alone(cell: Cell) -> tuple[Cell, ...]:
    """The cells of a composition's methods by themselves, each at the budget that it has there; none for a single method."""
    several = joined(cell.method)
    return tuple(_alone(cell, text) for text in several) if len(several) > 1 else ()


def _alone(cell: Cell, text: str) -> Cell:
    name, preset, keep, _ = read(text, open_methods())
    return Cell(cell.model, name, preset or "paper", Budget.parse(keep).label if keep else cell.keep, cell.task)


def beyond(
    outcomes: Sequence[Outcome],
    usable: Sequence[bool],
    dense: int | None,
    resamples: Resampling,
    scores: Floats,
    units: Places,
) -> list[dict[str, Any] | None]:
    """Each composition against its methods alone on the samples that all of them and dense answered; None for single methods.

    `usable`: whether an outcome may be compared with dense, which stands at the place `dense` of the columns of `scores`; no
    numbers where one that is needed did not run, or may not. `units` as in `Resampling`.
    """
    places = {outcome.cell: place for place, outcome in enumerate(outcomes) if usable[place]}
    ran = {outcome.cell for outcome in outcomes}
    found: list[dict[str, Any] | None] = [None] * len(outcomes)
    wanted: dict[int, list[int]] = {}
    for place, outcome in enumerate(outcomes):
        if not (parts := methods_alone(outcome.cell)):
            continue
        found[place] = unknown(UNLIKE if ran.issuperset(parts) else ALONE)
        those = [places[part] for part in parts if part in places]
        if dense is not None and usable[dense] and usable[place] and len(those) == len(parts):
            wanted[place] = those
    if wanted and dense is not None:
        columns = [_column(scores, place, those, dense) for place, those in wanted.items()]
        told = _told(np.stack(columns, axis=1), [len(those) for those in wanted.values()], resamples, units)
        for place, one in zip(wanted, told, strict=True):
            found[place] = one
    return found


def unknown(why: str) -> dict[str, Any]:
    """What is told of a composition that nothing can be said of."""
    return {**dict.fromkeys(NUMBERS), "n": 0, "verdict": why}


def _column(scores: Floats, place: int, those: Sequence[int], dense: int) -> Floats:
    found: Floats = scores[:, place] - scores[:, those].sum(axis=1) + (len(those) - 1) * scores[:, dense]
    found[np.abs(found) < NO_WIDTH] = 0  # what sums of fractions leave
    return found


def _told(values: Floats, sizes: Sequence[int], resamples: Resampling, units: Places) -> list[dict[str, Any]]:
    """By column of values (samples, compositions): its mean with all that the resamples tell of it."""
    draws, counts = resamples.means(values), resamples.answered(values)
    gains = np.zeros((int(units.max()) + 1, values.shape[1]))
    np.add.at(gains, units, values)
    better, worse = (np.count_nonzero(side, axis=0).tolist() for side in (gains > NO_WIDTH, gains < -NO_WIDTH))
    averages, wide = resamples.averages(values), spreads(draws)
    n = np.count_nonzero(~np.isnan(values), axis=0).tolist()
    found = []
    for place, one in enumerate(intervals(draws)):
        (bounds,) = stated([one], [counts[place]], -sizes[place], sizes[place])
        unlike = better[place] + worse[place]
        facts = {
            "difference": averages[place],
            "interval": ends(bounds),
            "better": better[place],
            "worse": worse[place],
            "mean_p": difference_p(averages[place], wide[place], counts[place], unlike),
            "q": None,
            "detectable": detectable(wide[place], counts[place], unlike),
            "n": n[place],
        }
        found.append({**facts, "verdict": verdict(bounds)})
    return found


def verdict(interval: Sequence[float] | None, q: float | None = None) -> str:
    """What an interval of that difference comes to; `q`: the rate at which it is a discovery, where that is asked."""
    if interval is None:
        return FEW
    if q is not None and q > RATE:
        return OPEN
    return LESS if interval[0] > NO_WIDTH else MORE if interval[1] < -NO_WIDTH else OPEN
