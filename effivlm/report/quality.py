"""Quality within one (model, task): intervals, ratios to dense, paired tests and loyalty of its cells."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import attrgetter
from typing import Any

import numpy as np

from effivlm.metrics.resampling import Places, Resampling
from effivlm.metrics.statistics import LEAST, Floats, Interval, intervals, stated
from effivlm.metrics.units import units as units_of
from effivlm.records import Answer, Cell, Outcome
from effivlm.report.additive import beyond
from effivlm.report.controls import control_of, judged, wanted
from effivlm.report.divergences import divergences
from effivlm.report.loyalty import Table, loyalties, noise
from effivlm.report.pairs import Pairs

_ASKED = attrgetter("id", "prompt_sha256")
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


def compare(outcomes: Sequence[Outcome], dense: Outcome | None) -> list[Quality]:
    """Compare the quality outcomes of one (model, task) with `dense`, which is one of them, or None if it was not
    measured.

    All cells share one seeded set of resamples, so differences and ratios are paired; other groups draw their own. Answers that
    were scored together are drawn together, and are one pair in the sign test; where the score is a mean over parts of the
    benchmark, each part is drawn by itself. A cell is set against its control as against
    dense.
    """
    if not outcomes:
        return []
    lead = [dense] if dense else list(outcomes[:1])
    questions = _questions([*lead, *outcomes])
    names = _names([*lead, *outcomes], questions)
    ids = names[0] if all(one == names[0] for one in names) else list(dict.fromkeys(chain.from_iterable(names)))
    unlike = [
        _unlike(outcome, dense, own is questions[0])
        for outcome, own in zip(outcomes, questions[len(lead) :], strict=True)
    ]
    ratios = [None if why else _ratio(outcome, dense) for outcome, why in zip(outcomes, unlike, strict=True)]
    if not ids:
        return [Quality(ratio=ratio, remarks=why) for ratio, why in zip(ratios, unlike, strict=True)]
    columns = [_aligned(*one, ids) for one in zip(outcomes, names[len(lead) :], strict=True)]
    table = Table.of(outcomes, columns)
    units = _numbered(units_of(ids, lead[0].group, _pictures(columns)))
    seed = zlib.crc32("\0".join(lead[0].cell.group).encode())
    plain = Resampling.of(units, seed)
    resamples = _as_scored(plain, units, seed, lead[0], table)
    draws, same_draws = resamples.means(table.scores), plain.means(table.same)
    place = outcomes.index(dense) if dense else None
    pairs = None if place is None else Pairs.of(resamples, table.scores, draws, units, place)
    counts = resamples.answered(table.scores)
    score_intervals = stated(intervals(draws), counts, 0, 1)
    same_intervals = stated(intervals(same_draws), plain.answered(table.same), 0, 1)
    controls = _controls(
        outcomes, lambda chosen: Pairs.of(resamples, table.scores[:, chosen], draws[:, chosen], units, 0)
    )
    loyal = loyalties(outcomes, table, place, same_intervals, divergences(columns, plain))
    averaged = _averaged(outcomes, resamples.averages(table.scores))
    usable = [
        one and not why and outcome.weights != "random"
        for one, why, outcome in zip(averaged, unlike, outcomes, strict=True)
    ]
    composed = beyond(outcomes, usable, place, resamples, table.scores, units)
    found = []
    for place, outcome in enumerate(outcomes):
        facts: dict[str, Any] = {
            "interval": score_intervals[place] if averaged[place] else None,
            "ratio": ratios[place],
            "control": controls[place],
            "units": counts[place],
            "loyalty": loyal[place],
            "noise": noise(outcome) if outcome is dense else None,
            "remarks": _without_interval(outcome, averaged[place], resamples),
            "parts": _parts(outcome, table, place, resamples),
            "beyond": composed[place],
        }
        if outcome.weights == "random":
            facts |= {"ratio": None, "control": None, "remarks": (*facts["remarks"], RANDOM_WEIGHTS)}
        else:
            if pairs and averaged[place] and averaged[pairs.other] and not unlike[place]:
                facts |= pairs.told(place, facts["ratio"], facts["remarks"])
            facts["remarks"] = (*facts["remarks"], *unlike[place])
            facts["same_draws"] = same_draws[:, place] if counts[place] >= LEAST else None
        found.append(Quality(**facts))
    return found


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


def _controls(outcomes: Sequence[Outcome], paired: Callable[[list[int]], Pairs]) -> list[dict[str, Any] | None]:
    """Each cell against its control on the same samples, None where nothing controls it; `paired` sets cells against the first
    of them."""
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
        pairs = paired([cells[control], *places])
        for number, place in enumerate(places, start=1):
            found[place] = judged(control.method, control, pairs.paired(number))
    return found


def _questions(outcomes: Sequence[Outcome]) -> list[list[tuple[str, str]]]:
    """Each outcome's samples and the digests of their questions; all that are like the first are one object with it."""
    first = list(map(_ASKED, outcomes[0].answers))
    own = (list(map(_ASKED, outcome.answers)) for outcome in outcomes)
    return [first if one == first else one for one in own]


def _names(outcomes: Sequence[Outcome], questions: Sequence[list[tuple[str, str]]]) -> list[list[str]]:
    """What each answer is paired by: its sample's id, and the digest of its question where one id has several."""
    if all(those is questions[0] for those in questions):  # nearly always, and most of the work otherwise
        ids = [one for one, _ in questions[0]]
        if len(set(ids)) == len(ids):
            return [ids] * len(outcomes)
    asked: dict[str, set[str]] = {}
    for one, question in chain.from_iterable(questions):
        asked.setdefault(one, set()).add(question)

    def named(answer: Answer) -> str:
        return answer.id if len(asked[answer.id]) == 1 else f"{answer.prompt_sha256[:12]} {answer.id}"

    return [[named(answer) for answer in outcome.answers] for outcome in outcomes]


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


def _pictures(columns: Sequence[Sequence[Answer | None]]) -> list[str]:
    """The digest of what each sample shows, as the first of the cells that answered it has it."""
    return [next((one.pictures for one in row if one is not None), "") for row in zip(*columns, strict=True)]


def _numbered(names: Sequence[str]) -> Places:
    """The number of the unit that each sample is drawn with, by its name, so that the order of samples decides nothing."""
    numbers = {name: number for number, name in enumerate(sorted(set(names)))}
    return np.array([numbers[name] for name in names])


def _ratio(outcome: Outcome, dense: Outcome | None) -> float | None:
    if dense is None or outcome.score is None or not dense.score:
        return None
    return outcome.score / dense.score


def _aligned(outcome: Outcome, names: list[str], ids: list[str]) -> Sequence[Answer | None]:
    if names == ids:
        return outcome.answers
    by_name = dict(zip(names, outcome.answers, strict=True))
    return [by_name.get(name) for name in ids]
