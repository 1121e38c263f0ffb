"""Run folders as a tally, and several tallies as one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench_tests.studies.observations.tally import DENSE, DIGITS, Cell, Group, Tally, read, setting_of, told
from bench_tests.studies.observations.unfinished import rescued
from effivlm.metrics.units import units as units_of
from effivlm.report.document import records

FACTS = ("started", "device", "driver", "versions", "commit", "command")


def load(paths: Sequence[Path]) -> Tally:
    """Run folders and tallies as one; of a cell in several the last counts, on samples that are the same.

    Raises:
        ValueError: a file is neither, or two hold one (model, task) with different samples.
    """
    found = Tally([], [])
    for path in paths:
        one = gathered(path) if path.is_dir() else read(path)
        found.runs.extend(one.runs)
        for name, (count, reason) in one.unmeasured.items():
            found.unmeasured[name] = (found.unmeasured.get(name, (0, ""))[0] + count, reason)
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


def gathered(folder: Path) -> Tally:
    """The tally of one run folder, also of one that was cut off.

    Raises:
        ValueError: a score is no mean over its answers.
        OSError: there is no record.
    """
    groups: dict[tuple[str, str], Group] = {}
    waiting: list[Mapping[str, Any]] = []
    facts: dict[str, Any] = {}
    unmeasured: dict[str, tuple[int, str]] = {}
    for record in _outcomes(folder / "outcomes.jsonl", facts):
        cell = record["cell"]
        if record["status"] != "ok":
            name = f"{cell['method']}, {record['status']}"
            unmeasured[name] = (unmeasured.get(name, (0, ""))[0] + 1, record["reason"])
        elif setting_of(cell) == DENSE:
            groups[cell["model"], cell["task"]] = _group(record)
        else:
            waiting.append(_lean(record))
    for record in waiting:
        if group := groups.get((record["cell"]["model"], record["cell"]["task"])):
            group.cells[setting_of(record["cell"])] = _cell(record, group.ids)
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
