"""Observations 2 and 4: generalization and loyalty of cache methods and pruning, and the same trends on all kinds of tasks."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
from scipy.stats import rankdata

from bench_tests.studies.observations import paper
from bench_tests.studies.observations.book import Book, Pair
from bench_tests.studies.observations.effects import Claim, Effect
from bench_tests.studies.observations.evidence import Evidence
from bench_tests.studies.observations.names import BUDGETS, CACHE, PRUNING, SEVERAL, SINGLE, TOKENS, VIDEO, at
from bench_tests.studies.observations.tally import DENSE, Missing, Setting
from effivlm.metrics.statistics import Floats

SECOND = "Observation 2: cache compression generalizes better and is more loyal than token pruning"
FOURTH = "Observation 4: the same trends in single-image, multi-image and video tasks"
UNLIKE = (
    "A budget is a share of visual tokens in pruning and of all entries in a cache, as in the paper: on short prompts they are"
    " not the same number of entries."
)
FEW_TASKS = "One micro task has several pictures and one has videos of a few frames."
LEAST_RANK = 0.5
"""What a rank correlation must exceed for trends to be called the same."""


def loyal(budgets: Collection[str]) -> Callable[[Evidence], Effect]:
    """Share of dense's answers that are given again: cache methods less pruning."""

    def told(evidence: Evidence) -> Effect:
        return evidence.same.contrast(at(CACHE, [*budgets]), at(PRUNING, [*budgets]))

    return told


def spread(budget: str) -> Callable[[Evidence], Effect]:
    """OG of pruning less that of cache methods, each the mean over methods."""

    def told(evidence: Evidence) -> Effect:
        book = evidence.scores
        wanted = [*at(TOKENS, budget), DENSE]
        pairs = whole(book, wanted)
        sides = [
            np.mean([generalization(book, pairs, (name, budget)) for name in names], axis=0)
            for names in (PRUNING, CACHE)
        ]
        found = sides[0] - sides[1]
        units = book.units(pairs, wanted)
        return Effect(float(found[0]), found[1:], units, units, f"{len({task for _, task in pairs})} tasks")

    return told


def whole(book: Book, wanted: Collection[Setting]) -> list[Pair]:
    """Pairs of tasks that every model ran. Raises Missing under two such tasks."""
    pairs = book.pairs(wanted)
    tasks = [task for task in book.tasks if all((model, task) in pairs for model in book.models)]
    if len(tasks) < 2:
        raise Missing("two tasks at least that all models ran")
    return [pair for pair in pairs if pair[1] in tasks]


def generalization(book: Book, pairs: Collection[Pair], setting: Setting) -> Floats:
    """OG (1 + rounds): spread over tasks of the share of dense's score, averaged over models, as a share of its mean."""
    tasks = list(dict.fromkeys(task for _, task in pairs))
    ratios = np.stack(
        [
            np.mean([book.at(pair, setting) / book.at(pair, DENSE) for pair in pairs if pair[1] == task], axis=0)
            for task in tasks
        ]
    )
    found: Floats = ratios.std(0) / ratios.mean(0)
    return found


def best(evidence: Evidence) -> Effect:
    others = [name for name in CACHE if name not in ("h2o", "pyramidkv")]
    return evidence.scores.contrast(at(("h2o", "pyramidkv"), BUDGETS), at(others, BUDGETS))


def alike(tasks: Collection[str], within: bool) -> Callable[[Evidence], Effect]:
    """Rank correlation of settings' scores on single-image tasks with those on `tasks`; `within` a budget, averaged over them."""

    def told(evidence: Evidence) -> Effect:
        book, settings = evidence.scores, at(TOKENS, BUDGETS)
        sides = []
        every: list[Pair] = []
        for of in (SINGLE, tasks):
            pairs = book.pairs(settings, of)
            every += pairs
            sides.append(np.stack([book.over(pairs, [setting]) for setting in settings]))
        groups = (
            [[settings.index(one) for one in at(TOKENS, label)] for label in BUDGETS]
            if within
            else [[*range(len(settings))]]
        )
        found = np.mean([correlation(*(side[group] for side in sides)) for group in groups], axis=0)
        units = book.units(every, settings)
        return Effect(float(found[0]), found[1:], units, units, f"{len(every)} (model, task) pairs")

    return told


def correlation(first: Floats, second: Floats) -> Floats:
    """Spearman's rank correlation of the columns of two tables (settings, 1 + rounds); 0 where a column is constant."""
    ranks = [rankdata(side, axis=0) for side in (first, second)]
    centred = [side - side.mean(0) for side in ranks]
    sizes = np.sqrt((centred[0] ** 2).sum(0) * (centred[1] ** 2).sum(0))
    found: Floats = np.divide((centred[0] * centred[1]).sum(0), sizes, out=np.zeros(sizes.shape), where=sizes > 0)
    return found


def trend(name: str, kind: str, tasks: Collection[str], within: bool) -> Claim:
    what = "methods rank alike at the same budget" if within else "scores of methods and budgets go together"
    return Claim(
        name,
        FOURTH,
        f"On {kind} {what} with those on single-image tasks.",
        "Spearman's rank correlation of scores on single-image tasks with those on the others, over the paper's nine methods"
        + (" at one budget, mean over five budgets" if within else " at five budgets")
        + f"; it holds above {LEAST_RANK:g}",
        alike(tasks, within),
        FEW_TASKS,
        null=LEAST_RANK,
        bound=LEAST_RANK,
        unit="rank correlation",
    )


CLAIMS = (
    Claim(
        "2.1 loyalty at 1 %",
        SECOND,
        "Cache methods are more loyal than pruning at 1 %.",
        "share of answers that are dense's: six cache methods less three pruning methods",
        loyal(["0.01"]),
        UNLIKE,
        paper.printed("ol", CACHE, PRUNING, 0),
    ),
    Claim(
        "2.2 loyalty at 40 %",
        SECOND,
        "Cache methods are more loyal than pruning at 40 %.",
        "share of answers that are dense's: six cache methods less three pruning methods",
        loyal(["0.40"]),
        UNLIKE,
        paper.printed("ol", CACHE, PRUNING, 1),
    ),
    Claim(
        "2.3 loyalty",
        SECOND,
        "Cache methods are more loyal than pruning over all budgets.",
        "share of answers that are dense's: six cache methods less three pruning methods, mean over five budgets",
        loyal(BUDGETS),
        UNLIKE,
    ),
    Claim(
        "2.4 generalization at 1 %",
        SECOND,
        "Cache methods generalize better (lower OG) than pruning at 1 %.",
        "OG of three pruning methods less that of six cache methods, as a share",
        spread("0.01"),
        f"{UNLIKE} OG divides by a mean that is small here at 1 %.",
        paper.printed("og", PRUNING, CACHE, 0),
    ),
    Claim(
        "2.5 generalization at 40 %",
        SECOND,
        "Cache methods generalize better (lower OG) than pruning at 40 %.",
        "OG of three pruning methods less that of six cache methods, as a share",
        spread("0.40"),
        UNLIKE,
        paper.printed("og", PRUNING, CACHE, 1),
    ),
    Claim(
        "2.6 H2O and PyramidKV",
        SECOND,
        "H2O and PyramidKV are the strong ones among cache methods.",
        "score of h2o and pyramidkv less that of the other four, mean over five budgets",
        best,
        "What H2O sums depends on how many rows see an entry, which short prompts change.",
        paper.contrast(
            at(("h2o", "pyramidkv"), BUDGETS),
            at([name for name in CACHE if name not in ("h2o", "pyramidkv")], BUDGETS),
        ),
    ),
    trend("4.1 several images", "tasks of several images", SEVERAL, False),
    trend("4.2 video", "videos", VIDEO, False),
    trend("4.3 several images, methods", "tasks of several images", SEVERAL, True),
    trend("4.4 video, methods", "videos", VIDEO, True),
)
