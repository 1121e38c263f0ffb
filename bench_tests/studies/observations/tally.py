"""What claims need of runs, in one small file: the score of every answer, and whether it is dense's; no texts and no tokens."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from effivlm.budget import Budget
from effivlm.metrics.units import units as units_of
from effivlm.report.document import records

FORM = "effivlm observations 1"
FACTS = ("started", "device", "driver", "versions", "commit", "command")
DENSE = ("dense", "1.00")
DIGITS = 6
Setting: TypeAlias = tuple[str, str]
"""A method with its preset, and the label of its budget."""
Scores: TypeAlias = Sequence[float | None]


class Missing(ValueError):
    """What a claim needs was not run."""


@dataclass(frozen=True)
class Cell:
    """What one cell answered, in the order of its group's samples; None: it broke, or nothing is known."""

    scores: Scores
    same: Scores
    kept: float
    bytes: float


@dataclass(frozen=True)
class Group:
    """The cells of one (model, task): ids of the samples, the unit that each is drawn with, and dense's tokens for each."""

    model: str
    task: str
    answer_type: str
    ids: list[str]
    units: list[str]
    lengths: list[int]
    cells: dict[Setting, Cell] = field(default_factory=dict)


@dataclass(frozen=True)
class Tally:
    """All groups, the facts of the runs that they are from, and cells without a result by their reasons."""

    groups: list[Group]
    runs: list[dict[str, Any]]
    unmeasured: dict[str, int] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        cells = [
            {**vars(group), "cells": [[*setting, *vars(cell).values()] for setting, cell in group.cells.items()]}
            for group in self.groups
        ]
        text = json.dumps({"form": FORM, **vars(self), "groups": cells}, separators=(",", ":"), allow_nan=False)
        path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def load(paths: Sequence[Path]) -> Tally:
    """Run folders and tallies as one; of a cell in several the last counts, on samples that are the same.

    Raises:
        ValueError: a file is neither, or two hold one (model, task) with different samples.
    """
    found = Tally([], [])
    for path in paths:
        one = gathered(path) if path.is_dir() else _read(path)
        found.runs.extend(one.runs)
        for reason, count in one.unmeasured.items():
            found.unmeasured[reason] = found.unmeasured.get(reason, 0) + count
        for group in one.groups:
            _put(found.groups, group, path)
    return found


def _put(groups: list[Group], new: Group, path: Path) -> None:
    old = next((one for one in groups if (one.model, one.task) == (new.model, new.task)), None)
    if old is None:
        groups.append(new)
        return
    shared = dict(zip(old.ids, old.units, strict=True))
    if alien := [one for one in new.ids if one not in shared]:
        if len(new.ids) > len(old.ids) and set(old.ids) < set(new.ids):
            groups[groups.index(old)] = new
            _put(groups, old, path)
            return
        raise ValueError(f"{path}: {new.model} on {new.task} holds samples such as {alien[0]}, which others lack")
    places = [new.ids.index(one) if one in new.ids else None for one in old.ids]
    for setting, cell in new.cells.items():
        if setting != DENSE or setting not in old.cells:
            scores, same = ([None if at is None else of[at] for at in places] for of in (cell.scores, cell.same))
            old.cells[setting] = Cell(scores, same, cell.kept, cell.bytes)


def _read(path: Path) -> Tally:
    try:
        raw = json.loads(gzip.decompress(path.read_bytes()))
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(f"{path} is neither a run folder nor a tally: {error}") from None
    if not isinstance(raw, dict) or raw.get("form") != FORM:
        raise ValueError(f"{path} is no tally of the form {FORM!r}")
    groups = [
        Group(**{**one, "cells": {(cell[0], cell[1]): Cell(*cell[2:]) for cell in one["cells"]}})
        for one in raw["groups"]
    ]
    return Tally(groups, raw["runs"], raw["unmeasured"])


def gathered(folder: Path) -> Tally:
    """The tally of one run folder, also of one that was cut off.

    Raises:
        ValueError: a score is no mean over its answers.
        OSError: there is no record.
    """
    groups: dict[tuple[str, str], Group] = {}
    waiting: list[Mapping[str, Any]] = []
    facts: dict[str, Any] = {}
    unmeasured: dict[str, int] = {}
    for record in _outcomes(folder / "outcomes.jsonl", facts):
        cell = record["cell"]
        if record["status"] != "ok":
            reason = f"{record['status']}: {cell['method']}: {record['reason']}"
            unmeasured[reason] = unmeasured.get(reason, 0) + 1
        elif setting_of(cell) == DENSE:
            groups[cell["model"], cell["task"]] = _group(record)
        else:
            waiting.append(_lean(record))
    for record in waiting:
        if group := groups.get((record["cell"]["model"], record["cell"]["task"])):
            group.cells[setting_of(record["cell"])] = _cell(record, group.ids)
    from bench_tests.studies.observations.unfinished import rescued  # which makes groups too

    return Tally([*groups.values(), *rescued(folder, groups)], [facts], unmeasured)


def _outcomes(path: Path, facts: dict[str, Any]) -> Iterator[Mapping[str, Any]]:
    for _, record in records(path):
        if record and record.get("kind") == "run":
            facts.update({name: record.get(name) for name in FACTS}, limit=record["settings"]["limit"])
            facts.update({name: record["settings"][name] for name in ("seed", "dtype")})
        elif record and record.get("kind") == "outcome" and record["part"] == "quality":
            yield record


def _lean(record: Mapping[str, Any]) -> dict[str, Any]:
    """What is needed of an outcome, so that thousands of them fit into memory."""
    answers = [{name: one[name] for name in ("id", "score", "same_as_dense")} for one in record["answers"]]
    return {**{name: record[name] for name in ("cell", "score", "achieved", "answer_type")}, "answers": answers}


def _group(record: Mapping[str, Any]) -> Group:
    answers = record["answers"]
    ids = [one["id"] for one in answers]
    units = units_of(ids, record["group"], [one.get("pictures", "") for one in answers])
    group = Group(
        record["cell"]["model"],
        record["cell"]["task"],
        record["answer_type"],
        ids,
        units,
        [len(one["tokens"]) for one in answers],
    )
    group.cells[DENSE] = _cell(record, ids)
    return group


def setting_of(cell: Mapping[str, Any]) -> Setting:
    """The setting of a stored cell."""
    preset = "" if cell["preset"] == "paper" else f"@{cell['preset']}"
    return cell["method"] + preset, Budget.parse(cell["keep"]).label


def told(value: float | bool | None) -> float | None:
    """A value as a tally holds it."""
    return None if value is None else round(float(value), DIGITS)


def _cell(record: Mapping[str, Any], ids: Sequence[str]) -> Cell:
    answers = {one["id"]: one for one in record["answers"]}
    scores = [answers[one]["score"] if one in answers else None for one in ids]
    known = [one for one in scores if one is not None]
    if not known or abs(math.fsum(known) / len(known) - record["score"]) > 1e-6:
        raise ValueError(f"{record['cell']}: its score is no mean over its answers")
    same = [answers[one]["same_as_dense"] if one in answers else None for one in ids]
    kept = record["achieved"] or {}
    share = kept["kv_bytes"] / kept["kv_bytes_dense"] if kept.get("kv_bytes_dense") else 1.0
    return Cell(
        [told(one) for one in scores],
        [told(one) for one in same],
        round(float(kept.get("keep", 1.0)), DIGITS),
        round(share, DIGITS),
    )
