"""A certificate that a method is not worse than dense by more than a margin: one-sided, paired, whole groups of samples."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from effivlm.metrics.inferiority import Bound, Losses, bound
from effivlm.metrics.statistics import LEAST, LEVEL
from effivlm.records import SCHEMA, Budget
from effivlm.report.baseline import Measured, Side
from effivlm.report.comparable import incomparable

CERTIFIED, WORSE, OPEN, NONE = "certified", "worse", "open", "cannot be certified"
DENSE = "dense"


@dataclass(frozen=True, slots=True)
class Claim:
    """What is to be certified: a method at a budget loses less than `margin` of the score on [0, 1].

    `model` "" takes all models of the run; `every`: each task has to be certified by itself, not only their mean.
    """

    method: str
    preset: str
    budget: Budget
    margin: float
    level: float = LEVEL
    model: str = ""
    every: bool = False

    def __post_init__(self) -> None:
        for name, value in (("margin", self.margin), ("level", self.level)):
            if not 0 < value < 1:
                raise ValueError(f"{name} {value:g} does not lie between 0 and 1")

    @property
    def label(self) -> str:
        method = self.method if self.preset == "paper" else f"{self.method}@{self.preset}"
        return f"{method} at {self.budget.label}"


def certify(side: Side, claim: Claim) -> dict[str, Any]:
    """The certificate, as JSON holds it.

    Status: "certified" where the mean over tasks loses less than the margin, and no task is shown to lose more (with `every`:
    where each is certified); "worse" where more is lost for sure, in the mean or in a task; else "open". What a method broke and
    dense did not is no missing answer: such a task cannot be certified.

    Raises:
        ValueError: the run does not hold what is claimed, or no score of single samples; says what it holds.
    """
    chosen = [one for one in side.cells.values() if _claimed(one.data, claim)]
    if not chosen:
        raise ValueError(f"{side.name} holds no measured {claim.label}{_of(claim.model)}; it holds: {_held(side)}")
    tasks, parts = [], []
    for one in chosen:
        why, losses, facts = _losses(one, _dense_of(one, side))
        tasks.append(_row(one, why, _bound([losses], claim), facts, claim))
        parts += [losses] if losses else []
    whole = _bound(parts, claim)
    status = _status(tasks, whole, claim)
    found = {
        "kind": "certificate",
        "schema": SCHEMA,
        "run": {word: side.run.get(word) for word in ("status", "started", "commit")} | {"name": side.name},
        "claim": {"method": claim.method, "preset": claim.preset, "keep": claim.budget.stored, "margin": claim.margin}
        | {"level": claim.level, "every": claim.every},
        "status": status,
        "overall": None if whole is None else _facts(whole),
        "tasks": tasks,
    }
    return {**found, "sentence": _sentence(found, claim)}


def _claimed(data: Mapping[str, Any], claim: Claim) -> bool:
    named = (data["method"], data["preset"], data["keep"]) == (claim.method, claim.preset, claim.budget.stored)
    return named and claim.model in ("", data["model"]) and data["score"] is not None


def _of(model: str) -> str:
    return f" of {model}" if model else ""


def _held(side: Side) -> str:
    words = dict.fromkeys(
        f"{one.data['method']}{'' if one.data['preset'] == 'paper' else '@' + one.data['preset']} at"
        f" {Budget.parse(one.data['keep']).label}{_of(one.data['model'])}"
        for one in side.cells.values()
        if one.data["method"] != DENSE
    )
    why = next(iter(side.unmeasured.values()), "no outcome")
    return ", ".join(words) or ("dense alone" if side.cells else f"nothing that was measured ({why})")


def _dense_of(one: Measured, side: Side) -> Measured | None:
    group = (one.data["model"], one.data["task"])
    alike = (two for two in side.cells.values() if (two.data["model"], two.data["task"]) == group)
    return next((two for two in alike if two.data["method"] == DENSE and two.data["score"] is not None), None)


def _losses(one: Measured, dense: Measured | None) -> tuple[str, list[Losses], dict[str, Any]]:
    """Why nothing can be told, what was lost by part of the benchmark, and how much was compared."""
    facts: dict[str, Any] = {"n": 0, "groups": 0, "dense": dense.data["score"] if dense else None}
    if dense is None:
        return "dense was not measured", [], facts
    if one.data["weights"] == "random":
        return "the weights are random, so scores mean nothing", [], facts
    if not (one.ids and dense.ids):
        return "the scores of single samples are not here: name the run's folder", [], facts
    if unlike := incomparable(dense, one, "quality"):
        return unlike[1], [], facts
    own = dict(zip(one.ids, one.scores, strict=True))
    pairs = [(name, was, own.get(name)) for name, was in zip(dense.ids, dense.scores, strict=True) if was is not None]
    broke = sum(now is None for _, _, now in pairs)
    if broke:
        return f"{broke} samples broke that dense answered", [], facts
    drawn_with = dict(zip(dense.ids, dense.drawn_with, strict=True))
    names = [drawn_with[name] for name, _, _ in pairs]
    lost = [was - now for _, was, now in pairs if now is not None]
    places = dict(zip(dense.ids, dense.places, strict=True)) if dense.average == "parts" and dense.places else {}
    of = [places.get(name, "") for name, _, _ in pairs]
    facts |= {"n": len(pairs), "groups": len(set(names))}
    if facts["groups"] < LEAST:
        return f"{facts['groups']} groups of samples are too few", [], facts
    parts = []
    for number, part in enumerate(sorted(set(of))):
        those = [place for place, own_part in enumerate(of) if own_part == part]
        seed, alike = (_seed(one), number), dense.average == "groups"
        parts.append(Losses.of([lost[at] for at in those], [names[at] for at in those], seed, alike))
    fell = sum(part.mean for part in parts) / len(parts)
    if abs(dense.data["score"] - one.data["score"] - fell) > 1e-4:
        return "its score is no mean over samples", [], facts
    return "", parts, facts


def _seed(one: Measured) -> int:
    return zlib.crc32(f"{one.data['model']} {one.data['task']}".encode())


def _bound(tasks: Sequence[Sequence[Losses]], claim: Claim) -> Bound | None:
    """Of the mean over tasks, of which each weighs the same, and so do the parts of each."""
    weighs = [1 / len(parts) for parts in tasks for _ in parts]
    parts = [one for parts in tasks for one in parts]
    return bound(parts, weighs, claim.margin, claim.level) if parts else None


def _facts(found: Bound) -> dict[str, Any]:
    return {"drop": found.value, "lower": found.lower, "upper": found.upper, "p": found.p, "p_worse": found.p_worse}


def _row(one: Measured, why: str, found: Bound | None, facts: Mapping[str, Any], claim: Claim) -> dict[str, Any]:
    numbers = dict.fromkeys(("drop", "lower", "upper", "p", "p_worse")) if found is None else _facts(found)
    status = NONE if found is None else _told(found, claim)
    return {"model": one.data["model"], "task": one.data["task"], "status": status, "reason": why} | {
        **facts,
        "score": one.data["score"],
        **numbers,
    }


def _told(found: Bound, claim: Claim) -> str:
    alpha = 1 - claim.level
    return CERTIFIED if found.p <= alpha else WORSE if found.p_worse <= alpha else OPEN


def _status(tasks: Sequence[Mapping[str, Any]], whole: Bound | None, claim: Claim) -> str:
    told = {task["status"] for task in tasks}
    if NONE in told or whole is None:
        return WORSE if WORSE in told else OPEN
    if WORSE in told:
        return WORSE
    return (CERTIFIED if told == {CERTIFIED} else OPEN) if claim.every else _told(whole, claim)


def _sentence(found: Mapping[str, Any], claim: Claim) -> str:
    tasks, whole = found["tasks"], found["overall"]
    over = f"{len(tasks)} tasks" if len(tasks) > 1 else tasks[0]["task"]
    worse = [task["task"] for task in tasks if task["status"] == WORSE]
    lacking = next((f"{task['task']}: {task['reason']}" for task in tasks if task["reason"]), "")
    level = f"with {claim.level:.0%} confidence"
    if found["status"] == CERTIFIED:
        return (
            f"{claim.label} loses less than {claim.margin:g} of dense's score on {over}, {level}:"
            f" {whole['drop']:+.4f} lost, at most {whole['upper']:.4f}"
        )
    if worse:
        return f"{claim.label} loses more than {claim.margin:g} of dense's score on {', '.join(worse)}, {level}"
    if lacking:
        return f"{claim.label} is not certified: {lacking}"
    if found["status"] == WORSE:
        return f"{claim.label} loses more than {claim.margin:g} of dense's score on {over}, {level}"
    reach = f"{whole['drop']:+.4f} lost, but up to {whole['upper']:.4f} cannot be ruled out" if whole else ""
    return f"{claim.label} is not certified to lose less than {claim.margin:g} on {over}, {level}: {reach}; ask more samples"
