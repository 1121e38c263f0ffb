"""Quality within one (model, task): intervals, ratios to dense, paired tests and loyalty of its cells."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from effivlm.metrics.resampling import Places, Resampling
from effivlm.metrics.statistics import LEAST, Floats, Interval, intervals, stated
from effivlm.records import Cell, Outcome
from effivlm.report.additive import beyond
from effivlm.report.aligned import Aligned
from effivlm.report.controls import control_of, judged, wanted
from effivlm.report.divergences import divergences
from effivlm.report.loyalty import Table, loyalties, noise
from effivlm.report.pairs import Pairs

SAME = 1e-6  # how far a score may lie from the mean that is made of its answers
RANDOM_WEIGHTS = "random weights: times, bytes and agreement by token count, scores and same answers do not"
NOT_A_MEAN = "the score is no mean over samples, so it carries no bootstrap interval"
ONE_OF_A_PART = "a part of the benchmark has one sample only, whose score might be any other, so there is no interval"


@dataclass(frozen=True, slots=True)
class Quality:
    """One cell against dense on the same samples; the bootstrap draws are kept for the intervals of the summary."""

    interval: Interval | None = None
    ratio: float | None = None
    ratio_interval: Interval | None = None
    paired: dict[str, Any] | None = None
    control: dict[str, Any] | None = None
    units: int = 0
    loyalty: dict[str, Any] | None = None
    noise: dict[str, Any] | None = None
    remarks: tuple[str, ...] = ()
    parts: Mapping[str, Interval | None] = field(default_factory=dict)
    ratio_draws: Floats | None = None
    same_draws: Floats | None = None
    beyond: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class _Drawn:
    """The scores of all cells of one (model, task), and what they come to in every resample.

    `resamples` are for the mean that the task's score is, `plain` for means over samples.
    """

    table: Table
    units: Places
    plain: Resampling
    resamples: Resampling
    draws: Floats
    same_draws: Floats

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], aligned: Aligned, lead: Outcome) -> _Drawn:
        table, units = Table.of(outcomes, aligned.columns), aligned.units(lead.group)
        seed = zlib.crc32("\0".join(lead.cell.group).encode())
        plain = Resampling.of(units, seed)
        resamples = _as_scored(plain, units, seed, lead, table)
        return cls(table, units, plain, resamples, resamples.means(table.scores), plain.means(table.same))

    def pairs(self, cells: Sequence[int] | slice, other: int) -> Pairs:
        """Cells against the one that is `other` among them."""
        return Pairs.of(self.resamples, self.table.scores[:, cells], self.draws[:, cells], self.units, other)


def compare(outcomes: Sequence[Outcome], dense: Outcome | None) -> list[Quality]:
    """Compare the quality outcomes of one (model, task) with `dense`, which is one of them, or None if it was not measured.

    All cells share one seeded set of resamples, so differences and ratios are paired; other groups draw their own. Answers that
    were scored together are drawn together, and are one pair in the sign test; where the score is a mean over parts of the
    benchmark, each part is drawn by itself. A cell is set against its control as against dense.
    """
    if not outcomes:
        return []
    aligned = Aligned.of(outcomes, dense or outcomes[0])
    unlike = [_unlike(outcome, dense, alike) for outcome, alike in zip(outcomes, aligned.alike, strict=True)]
    ratios = [None if why else _ratio(outcome, dense) for outcome, why in zip(outcomes, unlike, strict=True)]
    if not aligned.ids:
        return [Quality(ratio=ratio, remarks=why) for ratio, why in zip(ratios, unlike, strict=True)]
    drawn = _Drawn.of(outcomes, aligned, dense or outcomes[0])
    averaged = _averaged(outcomes, drawn.resamples.averages(drawn.table.scores))
    usable = [
        mean and not why and outcome.weights != "random"
        for mean, why, outcome in zip(averaged, unlike, outcomes, strict=True)
    ]
    unpaired = _unpaired(outcomes, dense, drawn, averaged, usable)
    pairs = None if dense is None else drawn.pairs(slice(None), outcomes.index(dense))
    found = []
    for place, (outcome, one) in enumerate(zip(outcomes, unpaired, strict=True)):
        if outcome.weights == "random":
            found.append(replace(one, control=None, remarks=(*one.remarks, RANDOM_WEIGHTS)))
            continue
        paired: dict[str, Any] = {"ratio": ratios[place], "remarks": one.remarks}
        if pairs and usable[place] and averaged[pairs.other]:
            paired = pairs.told(place, ratios[place], one.remarks)
        paired["remarks"] += unlike[place]
        same_draws = drawn.same_draws[:, place] if one.units >= LEAST else None
        found.append(replace(one, **paired, same_draws=same_draws))
    return found


def _unpaired(
    outcomes: Sequence[Outcome],
    dense: Outcome | None,
    drawn: _Drawn,
    averaged: Sequence[bool],
    usable: Sequence[bool],
) -> list[Quality]:
    """What is told of each cell but its ratio to dense; `averaged` and `usable`: see `_averaged` and `additive.beyond`."""
    table, resamples, place = drawn.table, drawn.resamples, outcomes.index(dense) if dense else None
    counts = resamples.answered(table.scores)
    same_intervals = stated(intervals(drawn.same_draws), drawn.plain.answered(table.same), 0, 1)
    columns = zip(
        outcomes,
        averaged,
        stated(intervals(drawn.draws), counts, 0, 1),
        counts,
        _controls(outcomes, drawn),
        loyalties(outcomes, table, place, same_intervals, divergences(table.columns, drawn.plain)),
        beyond(outcomes, usable, place, resamples, table.scores, drawn.units),
        strict=True,
    )
    return [
        Quality(
            interval=interval if mean else None,
            control=control,
            units=count,
            loyalty=loyal,
            noise=noise(dense) if dense and outcome is dense else None,
            remarks=_without_interval(outcome, mean, resamples),
            parts=_parts(outcome, table, number, resamples),
            beyond=composed,
        )
        for number, (outcome, mean, interval, count, control, loyal, composed) in enumerate(columns)
    ]


def _as_scored(plain: Resampling, units: Places, seed: int, lead: Outcome, table: Table) -> Resampling:
    """Resamples for the mean that the task's score is."""
    if lead.average == "samples":
        return plain
    named = [next((one.part for one in row if one is not None), "") for row in zip(*table.columns, strict=True)]
    return Resampling.of(units, seed, lead.average, named)


def _without_interval(outcome: Outcome, averaged: bool, resamples: Resampling) -> tuple[str, ...]:
    """Why a score has no interval, where that is not for too few samples."""
    if outcome.score is None:
        return ()
    return (NOT_A_MEAN,) if not averaged else (ONE_OF_A_PART,) if resamples.single else ()


def _parts(outcome: Outcome, table: Table, place: int, resamples: Resampling) -> dict[str, Interval | None]:
    """The interval of each score that the benchmark reports beside its own; None for a figure that is no such mean."""
    found: dict[str, Interval | None] = dict.fromkeys(outcome.parts)
    means_of = [name for name, one in outcome.parts.items() if one.of]
    if not means_of:
        return found
    own = [{*outcome.parts[name].of} for name in means_of]
    there = np.array([[one is not None and one.part in of for of in own] for one in table.columns[place]])
    values = np.where(there, table.scores[:, [place]], np.nan)
    intervals_of = stated(intervals(resamples.means(values)), resamples.answered(values), 0, 1)
    for name, interval, average in zip(means_of, intervals_of, resamples.averages(values), strict=True):
        told = average is not None and abs(average - outcome.parts[name].score) < SAME
        found[name] = interval if told else None
    return found


def _controls(outcomes: Sequence[Outcome], drawn: _Drawn) -> list[dict[str, Any] | None]:
    """Each cell against its control on the same samples, None where nothing controls it."""
    cells = {outcome.cell: place for place, outcome in enumerate(outcomes)}
    found: list[dict[str, Any] | None] = [None] * len(outcomes)
    members: dict[Cell, list[int]] = {}
    for place, outcome in enumerate(outcomes):
        if name := wanted(outcome):
            control = control_of(outcome.cell, name, cells)
            found[place] = judged(name, None, None)
            if control is not None:
                members.setdefault(control, []).append(place)
    for control, places in members.items():
        pairs = drawn.pairs([cells[control], *places], 0)
        for number, place in enumerate(places, start=1):
            found[place] = judged(control.method, control, pairs.paired(number))
    return found


def _unlike(outcome: Outcome, dense: Outcome | None, alike: bool) -> tuple[str, ...]:
    """Why a cell has no ratio to dense; `alike`: both were asked the same questions in the same order."""
    if dense is None:
        return ()
    if outcome.scoring != dense.scoring:
        return (f"scored by {outcome.scoring} and dense by {dense.scoring}, so there is no ratio",)
    if outcome.profile != dense.profile:
        return (f"scored by the profile {outcome.profile} and dense by {dense.profile}, so there is no ratio",)
    own, other = ((one.judged or {}).get("judge", "") for one in (outcome, dense))
    if own != other:
        return (f"marked by {own or 'nobody known'} and dense by {other or 'nobody known'}, so there is no ratio",)
    if alike:
        return ()
    asked = {answer.id: answer.prompt_sha256 for answer in dense.answers}
    others = sum(asked.get(answer.id, answer.prompt_sha256) != answer.prompt_sha256 for answer in outcome.answers)
    return (f"{others} of its samples ask other questions than dense's, so there is no ratio",) if others else ()


def _averaged(outcomes: Sequence[Outcome], averages: Sequence[float | None]) -> list[bool]:
    """Whether the score of each outcome is the mean of its answers' scores that it is said to be."""
    return [
        outcome.score is not None and average is not None and abs(average - outcome.score) < SAME
        for outcome, average in zip(outcomes, averages, strict=True)
    ]


def _ratio(outcome: Outcome, dense: Outcome | None) -> float | None:
    if dense is None or outcome.score is None or not dense.score:
        return None
    return outcome.score / dense.score
