"""What a run answered that was cut off before its groups were whole: its journals hold every sample that was asked."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from bench_tests.studies.observations.tally import DENSE, Cell, Group, Setting, setting_of, told
from effivlm import registry
from effivlm.metrics.units import units
from effivlm.session.journal import lines

Row: TypeAlias = dict[Setting, Mapping[str, Any]]
"""What one sample was answered, by setting."""


def rescued(folder: Path, whole: Collection[tuple[str, str]]) -> list[Group]:
    """Groups of (model, task) that are not `whole`, of the samples that dense and others answered.

    Tasks whose samples are scored together are left out, for their scores are not known before all are there.
    """
    found: dict[tuple[str, str], dict[int, Row]] = {}
    for line in lines(folder):
        key = (line.get("model", ""), line.get("task", ""))
        if line.get("kind") == "answers" and key not in whole and _alone(key[1]):
            found.setdefault(key, {}).setdefault(int(line["number"]), {}).update(_answers(line))
    groups = []
    for (model, task), samples in sorted(found.items()):
        if rows := [samples[number] for number in sorted(samples) if DENSE in samples[number]]:
            groups.append(_group(model, task, rows))
    return groups


def _alone(task: str) -> bool:
    return task in registry.names("tasks") and int(registry.inherited("tasks", task, "group") or 1) == 1


def _answers(line: Mapping[str, Any]) -> Row:
    return {setting_of(one["cell"]): one["answer"] for one in line["cells"] if one["answer"]}


def _group(model: str, task: str, rows: Sequence[Row]) -> Group:
    dense = [row[DENSE] for row in rows]
    ids = [one["id"] for one in dense]
    drawn_with = units(ids, 1, [one.get("pictures", "") for one in dense])
    kind = str(registry.inherited("tasks", task, "answer_type"))
    group = Group(model, task, kind, ids, drawn_with, [len(one["tokens"]) for one in dense])
    for setting in dict.fromkeys(setting for row in rows for setting in row):
        answers = [row.get(setting, {}) for row in rows]
        scores, same = ([told(one.get(name)) for one in answers] for name in ("score", "same_as_dense"))
        if any(one is not None for one in scores):
            group.cells[setting] = Cell(scores, same, 1.0, 1.0)
    return group
