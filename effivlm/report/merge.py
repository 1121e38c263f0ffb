"""Several runs (shards, machines) as one: their outcomes in one file, conflicts refused, every machine listed.

Runs of parts of a suite are put side by side; shards (`--vlm-shard`), which hold parts of the samples of every cell, are joined.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from effivlm.records import PARTS, SCHEMA, Cell, Outcome, dump
from effivlm.report.conditions import device_of
from effivlm.report.document import INTERRUPTED, read
from effivlm.report.strict import records

OUTCOMES = "outcomes.jsonl"
MEASURED = ("ok", "unsupported")
MACHINE = ("device", "driver", "gpus", "processor", "cores", "platform", "settings", "versions", "commit", "started")
Key = tuple[Cell, str]


@dataclass(frozen=True, slots=True)
class Run:
    """One of the runs, as its folder holds it; `latest` is the last word on each part of each cell.

    `answered_on`: the machines of its answers, where other shards gave some of them.
    """

    folder: Path
    header: Mapping[str, Any]
    latest: Mapping[Key, Outcome]
    end: Mapping[str, Any] | None
    answered_on: str = ""

    @property
    def shard(self) -> str:
        """ "2/8" where this run answered that share of the samples, "" where it answered all."""
        return str((self.header.get("settings") or {}).get("shard") or "")

    @property
    def machine(self) -> str:
        """Device and driver in words, as the engine of a timing carries them."""
        device, driver = device_of(self.header)
        return f"{device or 'unknown device'} (driver {driver})" if driver else device or "unknown device"


@dataclass(frozen=True, slots=True)
class Joined:
    """What shards come to together: the outcomes of whole cells, and which shards are `missing`, in words."""

    outcomes: Mapping[Key, Outcome]
    missing: str


Join = Callable[[Sequence[Run]], Joined]


@dataclass
class _Merged:
    """Whose outcome counts, by cell and part, and how many stood there twice."""

    owner: dict[Key, Run] = field(default_factory=dict)
    doubled: int = 0

    def add(self, run: Run) -> None:
        for key, outcome in run.latest.items():
            known = self.owner.get(key)
            if known is not None:
                self.doubled += 1
                self._check(known, run, key)
            if known is None or (known.latest[key].status not in MEASURED and outcome.status in MEASURED):
                self.owner[key] = run

    def _check(self, known: Run, run: Run, key: Key) -> None:
        """A failed or interrupted outcome conflicts with nothing: what was measured elsewhere takes its place."""
        one, other = known.latest[key], run.latest[key]
        if one.status not in MEASURED or other.status not in MEASURED:
            return
        what = "fingerprints" if one.fingerprint != other.fingerprint else "results"
        if what == "fingerprints" or _result(one) != _result(other):
            cell, part = key
            raise ValueError(
                f"{cell.id} ({part}) stands in {known.folder} and in {run.folder} with different {what}:"
                " leave one of them out, or split shards by model and task so that no cell is measured twice"
            )


def merge(folders: Sequence[Path], out: Path, join: Join) -> None:
    """Write the runs of `folders` as one outcomes.jsonl into `out`, from which its report is made like any run's.

    A part of a cell that stands in several runs is taken once where fingerprint and result are the same. Where machines
    differ, the engine of a timing names its device, so no mean and no speed-up mixes two. Shards are made one run by `join`.
    Raises ValueError for a conflict (naming both folders), another schema, or an `out` that holds a run; OSError where
    a folder cannot be read or written.
    """
    if (out / OUTCOMES).exists():
        raise ValueError(f"{out} holds a run already; name another folder with --out")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ValueError(f"a folder is named twice: {', '.join(map(str, folders))}")
    runs, missing = _joined([_open(folder) for folder in folders], join)
    merged = _Merged()
    for run in runs:
        merged.add(run)
    out.mkdir(parents=True, exist_ok=True)
    temporary = out / f".{OUTCOMES}"
    with temporary.open("w", encoding="utf-8", errors="replace") as file:
        file.writelines(dump(record) + "\n" for record in _records(runs, merged, missing))
    temporary.replace(out / OUTCOMES)


def _joined(runs: Sequence[Run], join: Join) -> tuple[list[Run], str]:
    """The runs with the outcomes of whole cells in the first of their shards, and which shards are missing."""
    shards = [run for run in runs if run.shard]
    if not shards:
        return list(runs), ""
    joined = join(shards)
    machines = " + ".join(dict.fromkeys(run.machine for run in shards))
    found = []
    for run in runs:
        if run.shard:
            timed = {key: outcome for key, outcome in run.latest.items() if key[1] != "quality"}
            run = replace(run, latest={**(joined.outcomes if run is shards[0] else {}), **timed}, answered_on=machines)
        found.append(run)
    return found, joined.missing


def _open(folder: Path) -> Run:
    path = folder / OUTCOMES
    if not path.is_file():
        raise ValueError(f"{folder} holds no {OUTCOMES}: name the folder of one run, e.g. reports/2026-01-31T12-00-00")
    header, outcomes, end = read(path)
    if header.get("machines"):
        parts = ", ".join(str(one["folder"]) for one in header["machines"])
        raise ValueError(f"{folder} was merged from several runs already ({parts}): name those runs instead")
    return Run(folder, header, {(outcome.cell, outcome.part): outcome for outcome in outcomes}, end)


def _result(outcome: Outcome) -> tuple[Any, ...]:
    """What must be equal in two outcomes of the same thing: everything that was measured."""
    answers = [(answer.id, answer.text, answer.score, answer.error) for answer in outcome.answers]
    costs = {name: cost.rounds for name, cost in outcome.costs.items()}
    return outcome.status, outcome.score, outcome.n, outcome.broken, answers, outcome.achieved, costs


def _records(runs: Sequence[Run], merged: _Merged, missing: str) -> Iterable[Mapping[str, Any]]:
    several = len({run.machine for run in runs}) > 1
    yield _header(runs, merged)
    seen: set[str] = set()
    for run in runs:
        for _, record in records(run.folder / OUTCOMES):
            kind = record and record.get("kind")
            if record is None or kind in ("run", "end", "outcome"):
                continue
            name = dump({key: record.get(key) for key in ("kind", "task", "id", "sample", "cell")})
            if name not in seen:
                seen.add(name)
                yield record
    for key, run in merged.owner.items():
        yield _placed(run.latest[key], run, several).to_json()
    ends = [run.end or {} for run in runs]
    unfinished = [run for run, end in zip(runs, ends, strict=True) if end.get("status") != "finished"]
    yield {
        "kind": "end",
        "status": INTERRUPTED if unfinished or missing else "finished",
        "reason": "; ".join([*(f"{run.folder} did not finish" for run in unfinished), *([missing] * bool(missing))]),
        "seconds": sum(end.get("seconds", 0) for end in ends),
    }


def _placed(outcome: Outcome, run: Run, several: bool) -> Outcome:
    if not several:
        return outcome
    if outcome.part != "quality":
        outcome = replace(outcome, engine=f"{outcome.engine or 'eager'} @ {run.machine}")
    place = run.answered_on if outcome.part == "quality" and run.answered_on else run.machine
    return outcome.with_remarks(f"{outcome.part} measured on {place}")


def _header(runs: Sequence[Run], merged: _Merged) -> dict[str, Any]:
    notes = [f"{run.folder.name}: {note}" for run in runs for note in run.header.get("notes", [])]
    if merged.doubled:
        notes.append(f"{merged.doubled} outcomes stood in several runs and were taken once")
    for word in ("limit", "seed", "dtype"):
        values = list(dict.fromkeys((run.header.get("settings") or {}).get(word) for run in runs))
        if len(values) > 1:
            notes.append(f"the runs differ in {word}: {', '.join(map(str, values))}; compare only within one of them")
    return {
        "kind": "run",
        **{key: value for key, value in runs[0].header.items() if key not in ("kind", "notes")},
        "schema": SCHEMA,
        **({"settings": {**runs[0].header["settings"], "shard": ""}} if runs[0].shard else {}),
        "command": f"python -m effivlm report {' '.join(str(run.folder) for run in runs)}",
        "device": " + ".join(dict.fromkeys(device_of(run.header)[0] or "unknown device" for run in runs)),
        "driver": " + ".join(dict.fromkeys(driver for run in runs if (driver := device_of(run.header)[1]))),
        "task_versions": _versions(runs),
        "machines": [_machine(run, merged) for run in runs],
        "notes": notes,
    }


def _versions(runs: Sequence[Run]) -> dict[str, int]:
    """Versions of all tasks; ValueError where two runs scored two versions of one."""
    found: dict[str, tuple[int, Run]] = {}
    for run in runs:
        for task, version in (run.header.get("task_versions") or {}).items():
            if task not in {cell.task for cell, _ in run.latest}:
                continue
            known, other = found.setdefault(task, (version, run))
            if known != version:
                raise ValueError(
                    f"task {task} has version {known} in {other.folder} and {version} in {run.folder}:"
                    " run it again with one version of effivlm"
                )
    return {task: version for task, (version, _) in found.items()}


def _machine(run: Run, merged: _Merged) -> dict[str, Any]:
    cells: dict[str, list[str]] = {part: [] for part in PARTS}
    for (cell, part), owner in merged.owner.items():
        if owner is run:
            cells[part].append(cell.id)
    facts = {key: run.header[key] for key in MACHINE if key in run.header}
    versions = run.header.get("task_versions")
    return {"folder": run.folder.name, **facts, **({"task_versions": versions} if versions else {}), "cells": cells}
