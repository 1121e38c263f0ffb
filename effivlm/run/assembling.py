"""Outcomes of a group from answers that were stored, whoever gave them. No model is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from effivlm.records import Cell, Outcome, Settings
from effivlm.run.answers import Given, Note
from effivlm.run.assembly import Ran, outcomes, take_all
from effivlm.run.compressed import changed_of
from effivlm.run.gave import Asked
from effivlm.run.group import WEIGHED, methods_of, task_in, with_dense
from effivlm.run.scoring import samples_of
from effivlm.run.sharding import numbers_of
from effivlm.run.steps import checkpoint_of
from effivlm.run.weighed import Weighed


def assembled(
    cells: Sequence[Cell],
    settings: Settings,
    family: str,
    names: Mapping[Cell, str],
    stored: Mapping[int, Asked],
    how: Mapping[str, Any],
    on_note: Note | None = None,
) -> tuple[list[Outcome], list[int]]:
    """The outcomes of a group from answers alone, equal to those of the run that asks them all; of a set its index is read.

    `how` is that of a `Group` that gave some of them. Beside the outcomes, the numbers of samples of which not every cell's
    answer is there; with any, there are no outcomes. Cells of a changed checkpoint are assembled without dense.
    """
    ran = Ran.from_json(how)
    ordered = _answering(cells)
    methods, unmade = methods_of(ordered, settings.seed)
    task = task_in(ordered[0].task, settings, family)
    samples_of(ordered[0].task, task, settings.limit, settings.seed)
    weighed = [Weighed.from_json(method, how[WEIGHED]) for method in changed_of(methods)]
    given = Given(task, cells[0].dense, methods, on_note or (lambda line: None), weighed=next(iter(weighed), None))
    if missing := take_all(given, stored, numbers_of(settings.shard, ran.total)):
        return [], missing
    return outcomes(ordered, unmade, names, given, ran, settings.shard), []


def count(task: str, settings: Settings, family: str) -> int:
    """How many samples a task has in a run; ValueError where it has none."""
    return len(samples_of(task, task_in(task, settings, family), settings.limit, settings.seed))


def still_answered(
    cells: Sequence[Cell], settings: Settings, family: str, stored: Mapping[int, Asked], expects: bool = False
) -> AbstractSet[int]:
    """Numbers of stored samples of which every cell's answer is there, to the question that the task asks now, and what dense
    `expects` where that is wanted; no model is needed, and no pictures where a task can do without."""
    ordered = _answering(cells)
    methods, _ = methods_of(ordered, settings.seed)
    task = task_in(ordered[0].task, settings, family)
    task.pictured = False
    samples = samples_of(ordered[0].task, task, settings.limit, settings.seed)
    nobody = Given(task, cells[0].dense, methods, lambda line: None, expects=expects)
    return {number for number, found in stored.items() if nobody.recalled(samples, number, found) is not None}


def _answering(cells: Sequence[Cell]) -> list[Cell]:
    """The cells that one checkpoint answers: dense among those of the model as it is."""
    one = cells[0]
    return list(cells) if checkpoint_of(one.method, one.preset, one.keep) else with_dense(cells)
