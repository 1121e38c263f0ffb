"""Observation 3: pruning or a cache method, chosen by how long answers are; times are those that efficiency runs measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product

import numpy as np

from bench_tests.studies.observations import paper
from bench_tests.studies.observations.book import Pair
from bench_tests.studies.observations.costs import BATCH, Timed, drawn
from bench_tests.studies.observations.effects import Claim, Effect
from bench_tests.studies.observations.evidence import Evidence
from bench_tests.studies.observations.names import CACHE, LONG, LOW, PRUNING, TOKENS, at
from bench_tests.studies.observations.tally import DENSE, Missing, Setting
from effivlm.metrics.statistics import Floats

GROUP = "Observation 3: pruning where answers are short, cache compression where they are long"
FASTER = math.log(1.05)
"""What a ratio of times must reach to matter."""
SHAPE = (
    "Times are of models of the published shapes with random weights, at the prompt length and on the cards of their reports;"
    " the interval is that of the timing alone."
)


def quicker(word: str, plus: Sequence[str], minus: Sequence[str], budget: str) -> Callable[[Evidence], Effect]:
    """Logarithm of the mean speed-up of some methods over that of others, on every model and card that has all of them."""

    def told(evidence: Evidence) -> Effect:
        found, cells = [], 0
        for own in by_place(evidence, at((*plus, *minus), budget), (word,)).values():
            sides = [
                np.mean([drawn(own[setting], word, at) for at, setting in enumerate(side)], axis=0)
                for side in (at(plus, budget), at(minus, budget))
            ]
            found.append(sides[0] - sides[1])
            cells += len(plus) + len(minus)
        mean: Floats = np.mean(found, axis=0)
        return Effect(float(mean[0]), mean[1:], cells, cells, f"{len(found)} models and cards")

    return told


def by_place(evidence: Evidence, wanted: Sequence[Setting], words: Sequence[str]) -> dict[str, dict[Setting, Timed]]:
    """Timed cells by model and card, where all that is wanted was timed. Raises Missing where that is nowhere."""
    places: dict[str, dict[Setting, Timed]] = {}
    for one in evidence.timed:
        if one.setting == DENSE or set(words) <= set(one.speedups):
            places.setdefault(one.where, {})[one.setting] = one
    found = {where: own for where, own in places.items() if {*wanted, DENSE} <= set(own)}
    if not found:
        raise Missing(f"no efficiency report holds {', '.join(sorted({name for name, _ in wanted}))} at these budgets")
    return found


def chosen(evidence: Evidence) -> Effect:
    """Score of pruning on short and a cache method on long answers, less that of one setting for all, at no less speed.

    For every setting that is the best of those as fast, when used for all tasks: the best mix that is as fast, less it. Which is
    best is told by scores as they are, and kept in resamples.
    """
    book, budgets = evidence.scores, ("0.10", "0.40")
    settings = at(TOKENS, budgets)
    pairs = book.pairs([*settings, DENSE])
    tasks = list(dict.fromkeys(task for _, task in pairs))
    if not set(tasks) & set(LONG) or not set(tasks) - set(LONG):
        raise Missing("tasks with short and with long answers")
    scores = {(setting, task): _score(evidence, pairs, setting, task) for setting in settings for task in tasks}
    gains = []
    for own in by_place(evidence, settings, ("ttft", BATCH)).values():
        speed = {(one, task): _faster(own, one, evidence.length(task)) for one in settings for task in tasks}
        singles = [dict.fromkeys(tasks, one) for one in settings]
        mixes = [
            {task: cached if task in LONG else pruned for task in tasks}
            for pruned, cached in product(at(PRUNING, budgets), at(CACHE, budgets))
        ]
        gains += _gains(
            [(_mean(speed, one), _mean(scores, one)) for one in singles],
            [(_mean(speed, one), _mean(scores, one)) for one in mixes],
        )
    if not gains:
        raise Missing("no mix is as fast as a single setting")
    found: Floats = np.mean(gains, axis=0)
    units = book.units(pairs, settings)
    return Effect(float(found[0]), found[1:], units, units, f"{len(tasks)} tasks, {len(gains)} speeds")


def _score(evidence: Evidence, pairs: Sequence[Pair], setting: Setting, task: str) -> Floats:
    return evidence.scores.over([pair for pair in pairs if pair[1] == task], [setting])


def _faster(own: dict[Setting, Timed], setting: Setting, tokens: float) -> Floats:
    """Logarithm of dense's time for a whole answer over a setting's, steps of a batch counted."""
    times = [(one.ttft_s or 0.0) + tokens * one.step_s[BATCH] for one in (own[DENSE], own[setting])]
    found: Floats = np.log(np.array(times[0] / times[1], dtype=np.float64))
    return found


def _mean(table: dict[tuple[Setting, str], Floats], policy: dict[str, Setting]) -> Floats:
    found: Floats = np.mean([table[setting, task] for task, setting in policy.items()], axis=0)
    return found


def _gains(singles: list[tuple[Floats, Floats]], mixes: list[tuple[Floats, Floats]]) -> list[Floats]:
    gains = []
    for speed, score in singles:
        if any(other > speed and better[0] > score[0] for other, better in singles):
            continue
        able = [one for fast, one in mixes if fast >= speed]
        if able:
            gains.append(max(able, key=lambda one: float(one[0])) - score)
    return gains


CLAIMS = (
    Claim(
        "3.1 first token",
        GROUP,
        "Pruning gives the first token sooner than cache compression does, at 10 %.",
        "ratio of mean speed-ups to the first token: three pruning methods over six cache methods",
        quicker("ttft", PRUNING, CACHE, "0.10"),
        SHAPE,
        bound=FASTER,
        unit="times",
    ),
    Claim(
        "3.2 decoding",
        GROUP,
        "Cache compression decodes faster than pruning does, in a batch, at 10 %.",
        "ratio of mean speed-ups of a step of the batch: six cache methods over three pruning methods",
        quicker(BATCH, CACHE, PRUNING, "0.10"),
        f"{SHAPE} Both shorten the cache by nine tenths or, in pruning, by nine tenths of what is visual.",
        bound=FASTER,
        unit="times",
    ),
    Claim(
        "3.3 long answers",
        GROUP,
        "At low budgets cache methods keep more than pruning on tasks with long answers.",
        "score on imagedc_micro: six cache methods less three pruning methods, 1 to 10 %",
        lambda evidence: evidence.scores.contrast(at(CACHE, LOW), at(PRUNING, LOW), LONG),
        "One task only has long answers here, of some hundred characters.",
    ),
    Claim(
        "3.4 short answers",
        GROUP,
        "At low budgets cache methods keep more than pruning on tasks with short answers too.",
        "score on all other tasks: six cache methods less three pruning methods, 1 to 10 %; in the paper: on all tasks that both"
        " have, at 1 and 10 %",
        lambda evidence: evidence.scores.contrast(
            at(CACHE, LOW), at(PRUNING, LOW), [task for task in evidence.scores.tasks if task not in LONG]
        ),
        "At the same budget is not at the same time: pruning is faster to the first token.",
        paper.contrast(at(CACHE, LOW[::2]), at(PRUNING, LOW[::2])),
    ),
    Claim(
        "3.5 choice by length",
        GROUP,
        "To choose by the length of answers, pruning for short and cache compression for long ones, beats one setting for all at"
        " the same speed.",
        "score of the best such mix less that of each best single setting that is no faster, at 10 and 40 %; speed is the time of"
        " whole answers, of as many tokens as dense gives, from measured times",
        chosen,
        f"{SHAPE} Answers of micro models are counted in characters, which makes them longer than a large model's tokens.",
    ),
)
