"""Marks of a benchmark's answers, and how much of a difference between two scores is the judge's own."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from effivlm.judging.judge import Judge, Reply, Unanswered
from effivlm.judging.remembered import Remembered
from effivlm.judging.rubrics import Item, Marks, Rubric

MOST_MISSING = 0.01  # share of missing marks from which on a score says too little
_UNREADABLE = "the reply holds no mark"


@dataclass(frozen=True, slots=True)
class Graded:
    """Marks by sample id, and the reason by id where there are none; with what they depend on.

    `judge` is the judge's recorded name, `models` what it said it was, `prompt_sha256` the hash of the rubric's template,
    `score` lies in [0, 1] (LLaVA-Wilder's ratio may exceed it) and is None where no mark is known.
    """

    rubric: str
    judge: str
    models: tuple[str, ...]
    prompt_sha256: str
    repeat: int
    marks: Mapping[str, Marks]
    missing: Mapping[str, str]
    score: float | None

    @property
    def trusted(self) -> bool:
        """Whether at most one mark in a hundred is missing."""
        return len(self.missing) <= MOST_MISSING * (len(self.marks) + len(self.missing))


def grade(judge: Judge, rubric: Rubric, items: Sequence[Item], repeat: int = 0, threads: int = 1) -> Graded:
    """Every item's marks by one judge; a reply that does not come or cannot be read is missing, never 0.

    `threads` queries are out at once; what comes of them does not depend on it.

    Raises ValueError without items, and where an id occurs twice.
    """
    if not items or len({item.id for item in items}) != len(items):
        raise ValueError(f"a judge needs items, each with an id of its own, got {len(items)}")
    marks: dict[str, Marks] = {}
    missing: dict[str, str] = {}
    models: set[str] = set()
    for item, reply in zip(items, _replies(judge, rubric, items, repeat, threads), strict=True):
        if isinstance(reply, Unanswered):
            missing[item.id] = str(reply)
            continue
        models.add(reply.model)
        own = rubric.read(reply.text)
        if own is None:
            missing[item.id] = f"{_UNREADABLE}: {reply.text[:80]!r}"
            if isinstance(judge, Remembered):
                judge.forget(rubric.query(item), repeat)
        else:
            marks[item.id] = own
    score = rubric.total(list(marks.values()))
    return Graded(rubric.name, judge.name, tuple(sorted(models)), rubric.sha256, repeat, marks, missing, score)


def _replies(
    judge: Judge, rubric: Rubric, items: Sequence[Item], repeat: int, threads: int
) -> list[Reply | Unanswered]:
    """A reply to each item in order, or why there is none; an interrupt waits for none of those that are still out."""

    def asked(item: Item) -> Reply | Unanswered:
        try:
            return judge.reply(rubric.query(item), repeat)
        except Unanswered as error:
            return error

    if threads == 1:
        return [asked(item) for item in items]
    pool = ThreadPoolExecutor(threads, "judge")
    try:
        return list(pool.map(asked, items))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True, slots=True)
class Noise:
    """What a judge's score of the same answers varies by: the floor under which a difference says nothing.

    `scores` holds that of each repeat, `spread` their largest minus their smallest, `changed` the share of items whose
    marks differ between repeats; over `n` items marked in every repeat.
    """

    scores: tuple[float, ...]
    spread: float
    changed: float
    n: int


def noise(
    judge: Judge,
    rubric: Rubric,
    items: Sequence[Item],
    repeats: int = 3,
    most: int = 50,
    seed: int = 0,
    threads: int = 1,
) -> Noise:
    """The noise floor over `repeats` askings about a seeded subset of at most `most` items, the same for every method.

    The subset is drawn by id, so that it does not depend on the items' order. Raises ValueError for repeats under 2, and where
    no item was marked every time.
    """
    if repeats < 2:
        raise ValueError(f"noise shows between repeats: at least 2, got {repeats}")
    chosen = subset(items, most, seed)
    rounds = [grade(judge, rubric, chosen, repeat, threads) for repeat in range(repeats)]
    ids = [item.id for item in chosen if all(item.id in own.marks for own in rounds)]
    totals = [rubric.total([own.marks[name] for name in ids]) for own in rounds]
    scores = tuple(score for score in totals if score is not None)
    if len(scores) != repeats:
        raise ValueError(f"{rubric.name}: no item of {len(chosen)} has marks in all {repeats} repeats")
    changed = sum(len({own.marks[name] for own in rounds}) > 1 for name in ids)
    return Noise(scores, max(scores) - min(scores), changed / len(ids), len(ids))


def subset(items: Sequence[Item], most: int, seed: int) -> list[Item]:
    """At most `most` items, drawn by a seed over their sorted ids. Raises ValueError for `most` under 1."""
    if most < 1:
        raise ValueError(f"a subset holds at least 1 item, got {most}")
    ordered = sorted(items, key=lambda item: item.id)
    return ordered if len(ordered) <= most else random.Random(seed).sample(ordered, most)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How two judges mark the same answers: share of equal marks, mean absolute difference, and both scores, over `n` items."""

    same: float
    difference: float
    scores: tuple[float, float]
    n: int


def agreement(left: Graded, right: Graded, rubric: Rubric) -> Agreement:
    """The agreement of two gradings over the items that both have marks of; the last mark of each counts (the answer's).

    Raises ValueError where they are of different rubrics or prompts, or share no item.
    """
    if (left.rubric, left.prompt_sha256) != (right.rubric, right.prompt_sha256) or left.rubric != rubric.name:
        raise ValueError(f"gradings by {left.rubric!r} and {right.rubric!r} are not of one rubric and prompt")
    shared = [name for name in left.marks if name in right.marks]
    pairs = [(left.marks[name], right.marks[name]) for name in shared]
    scores = [rubric.total([pair[side] for pair in pairs]) for side in (0, 1)]
    if scores[0] is None or scores[1] is None:
        raise ValueError(f"{left.judge} and {right.judge} have no marked item in common")
    gaps = [abs(own[-1] - other[-1]) for own, other in pairs]
    same = sum(own == other for own, other in pairs) / len(pairs)
    return Agreement(same, sum(gaps) / len(gaps), (scores[0], scores[1]), len(pairs))
