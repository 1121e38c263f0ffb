"""Run folders as a tally, and several tallies as one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench_tests.studies.observations.tally import DENSE, DIGITS, Cell, Group, Tally, read, setting_of, told
from bench_tests.studies.observations.unfinished import rescued
from effivlm.metrics.units import units as units_of
from effivlm.report import baseline
from effivlm.report.document import INTERRUPTED, records

FACTS = ("started", "device", "driver", "versions", "commit", "command")


def load(paths: Sequence[Path]) -> Tally:
    """Run folders, tallies and baselines of the gate as one; of a cell in several the last counts, on samples that are the same.

    Raises:
        ValueError: a file is neither, or two hold one (model, task) with different samples.
    """
    found = Tally([], [])
    for path in paths:
        one = gathered(path) if path.is_dir() else of_baseline(path) if path.suffix == ".json" else read(path)
        sizes = [len(group.ids) for group in one.groups]
        found.runs.extend({"answered": [min(sizes), max(sizes), len(sizes)], **run} for run in one.runs if sizes)
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
    if not set(old.ids) & set(new.ids):
        raise ValueError(f"{path}: {new.model} on {new.task} holds other samples, such as {new.ids[0]}")
    groups[groups.index(old)] = _both(old, new)


def _both(old: Group, new: Group) -> Group:
    """All samples of two; where both have a cell's answer the later counts, and of dense the first."""
    ids = list(dict.fromkeys([*old.ids, *new.ids]))
    units = {**dict(zip(new.ids, new.units, strict=True)), **dict(zip(old.ids, old.units, strict=True))}
    lengths = dict(zip(old.ids, old.lengths, strict=True))
    for one, length in zip(new.ids, new.lengths, strict=True):
        lengths[one] = lengths.get(one) or length  # what was counted without an answer has none
    kind = old.answer_type or new.answer_type
    found = Group(old.model, old.task, kind, ids, [units[one] for one in ids], [lengths[one] for one in ids])
    for setting in dict.fromkeys([*old.cells, *new.cells]):
        sides = [(group, group.cells[setting]) for group in (old, new) if setting in group.cells]
        if setting == DENSE:
            sides.reverse()
        answers: dict[str, tuple[float | None, float | None]] = {}
        for group, cell in sides:
            told_of = zip(group.ids, cell.scores, cell.same, strict=True)
            answers.update({one: (score, same) for one, score, same in told_of if score is not None})
        scores, same = ([answers.get(one, (None, None))[at] for one in ids] for at in (0, 1))
        found.cells[setting] = Cell(scores, same, sides[-1][1].kept, sides[-1][1].bytes)
    return found


def of_baseline(path: Path) -> Tally:
    """The tally of a baseline of the gate, which holds scores and no agreement. Raises ValueError where it is something else."""
    side = baseline.load(path)
    groups: dict[tuple[str, str], Group] = {}
    for one in sorted(side.cells.values(), key=lambda one: setting_of(one.data) != DENSE):
        data = one.data
        if not one.ids:
            continue
        if setting_of(data) == DENSE:
            ids = [*one.ids]
            facts = (data["model"], data["task"], data["answer_type"])
            groups[data["model"], data["task"]] = Group(*facts, ids, [*one.drawn_with], [0] * len(ids))
        if (group := groups.get((data["model"], data["task"]))) and group.ids == [*one.ids]:
            kept = data["achieved"] or {}
            group.cells[setting_of(data)] = Cell(
                [*one.scores], [None] * len(one.ids), round(float(kept.get("keep", 1.0)), DIGITS), bytes_of(kept)
            )
    settings = side.run["settings"]
    told_of = {name: side.run.get(name) for name in FACTS}
    return Tally([*groups.values()], [{**told_of, **{name: settings[name] for name in ("limit", "seed", "dtype")}}])


def bytes_of(kept: Mapping[str, Any]) -> float:
    """Bytes of a cache as a share of dense's."""
    return round(kept["kv_bytes"] / kept["kv_bytes_dense"], DIGITS) if kept.get("kv_bytes_dense") else 1.0


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
        if record["status"] == INTERRUPTED:
            continue  # what it answered until then stands in its journals
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
    return Cell(
        [told(one) for one in scores],
        [told(one) for one in same],
        round(float(kept.get("keep", 1.0)), DIGITS),
        bytes_of(kept),
    )
