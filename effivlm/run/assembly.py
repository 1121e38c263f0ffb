"""From answers to outcomes. What is made of them is the same whoever gave them: one process, many workers, or shards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from effivlm.models._adapter import Adapter
from effivlm.models._presenting import held_remarks
from effivlm.records import Cell, Outcome
from effivlm.run.answers import Given
from effivlm.run.audit import achieved, verdict
from effivlm.run.faults import FAULTS, told
from effivlm.run.gave import Asked
from effivlm.run.noise import change_of
from effivlm.run.scoring import FALLEN, overall, profile_remarks, reported, settled, waits_for
from effivlm.run.sharding import waits


@dataclass(frozen=True, slots=True)
class Ran:
    """What outcomes say of how a group ran: `total` samples on an engine, its layers by a kernel, with weights of a kind.

    `change` is the numeric change under which dense is asked again, `limited_by` what limits pictures, `positions` how long a
    prompt may be.
    """

    total: int
    engine: str
    kernel: str
    weights: str
    change: str
    limited_by: str
    positions: int

    @classmethod
    def of(cls, model: Adapter, engine: str, kernel: str, total: int) -> Ran:
        positions = model.text.config.max_position_embeddings
        return cls(total, engine, kernel, model.weights, change_of(model), model.limited_by, positions)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Ran:
        """KeyError or TypeError for what is none."""
        found = cls(**{name: data[name] for name in cls.__dataclass_fields__})
        if not isinstance(found.total, int) or not isinstance(found.positions, int):
            raise TypeError(f"{data} has no number of samples")
        return found

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def take_all(given: Given, stored: Mapping[int, Asked], numbers: Iterable[int]) -> list[int]:
    """Have `given` take in what samples gave, in their order; numbers of those of which not everything is there.

    Where one is missing, those behind it are still looked at, but what was taken in is no group's answers.
    """
    missing = []
    for number in numbers:
        found = given.told(number, stored.get(number))
        if found is None:
            missing.append(number)
        else:
            given.take(found)
    return missing


def outcomes(
    cells: Sequence[Cell],
    unmade: Mapping[Cell, str],
    names: Mapping[Cell, str],
    given: Given,
    ran: Ran,
    shard: str = "",
) -> list[Outcome]:
    """One outcome a cell; where a `shard` answered, one that waits for the others, with its answers as they were given, unless
    these end the cell anyway.

    `unmade` says why a cell has no method; such a one has no fingerprint, for it has no fields.
    """
    made = partial(_waiting, shard=shard) if shard else _outcome
    return [
        Outcome(cell, "", "failed", reason=unmade[cell]) if cell in unmade else made(cell, names[cell], given, ran)
        for cell in cells
    ]


def _waiting(cell: Cell, name: str, given: Given, ran: Ran, shard: str) -> Outcome:
    if cell in given.refused or cell in given.failed:
        return _outcome(cell, name, given, ran)
    answers = tuple(given.given[cell])
    broken = sum(bool(answer.error) for answer in answers)
    facts = facts_of(given, ran)
    return Outcome(cell, name, "unsupported", reason=waits(shard), broken=broken, answers=answers, **facts)


def facts_of(given: Given, ran: Ran) -> dict[str, Any]:
    """What every outcome of a group says alike."""
    task = given.task
    return {
        "metric": task.metric,
        "answer_type": task.answer_type,
        "scoring": task.scoring,
        "profile": task.profile,
        "average": task.average,
        "samples_from": task.samples_from(),
        "scale": task.scale,
        "group": task.group,
        "engine": ran.engine,
        "kernel": ran.kernel,
        "weights": ran.weights,
        "product": given.weighed and given.weighed.product,
    }


def _outcome(cell: Cell, name: str, given: Given, ran: Ran) -> Outcome:
    """What one cell of a group comes to."""
    task, facts = given.task, facts_of(given, ran)
    if reason := given.refused.get(cell):
        return Outcome(cell, name, "unsupported", reason=reason, **facts)
    if reason := given.failed.get(cell):
        return Outcome(cell, name, "failed", reason=reason, **facts)
    try:
        answers = given.given[cell] if (later := waits_for(task)) else settled(given.given[cell], task)
        scores = [answer.score for answer in answers if answer.score is not None]
        score = overall(answers, task) if scores else None
        facts["parts"] = reported(answers, task)
    except FAULTS as error:  # a task that cannot sum up one cell's answers fails that cell
        return Outcome(cell, name, "failed", reason=told(error), **facts)
    errors = [answer.error for answer in answers if answer.error]
    broke = "broke or went with one that did" if FALLEN in errors else "broke"
    first = next((error for error in errors if error != FALLEN), "")
    if not scores and len(errors) == len(answers):
        reason = f"every sample {broke}; the first: {first}"
        return Outcome(cell, name, "failed", reason=reason, broken=len(errors), **facts)
    remarks = [f"{len(errors)} of {len(answers)} samples {broke}: {first}"] if errors else []
    kept = cell, given.methods[cell], given.leaves[cell], given.weighed
    facts["achieved"] = achieved(*kept)
    status, reason = verdict(*kept)
    if status != "ok":
        return Outcome(cell, name, status, reason=reason, broken=len(errors), **facts)
    held = held_remarks(given.held, ran.limited_by, ran.positions)
    return Outcome(
        cell,
        name,
        "unsupported" if later else "ok",
        reason=later,
        n=len(scores),
        broken=len(errors),
        score=score,
        answers=tuple(answers),
        change=ran.change if any(answer.again is not None for answer in answers) else "",
        remarks=(*remarks, *profile_remarks(task), *given.remarks(cell), *held),
        **facts,
    )
