"""From the lines of a run to its document: `read` outcomes.jsonl, `build` report.json."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from effivlm.metrics.statistics import LEAST, LEVEL, ROUNDS
from effivlm.records import SCHEMA, Cell, Outcome
from effivlm.report.cells import as_stored, describe, name
from effivlm.report.published import overlay
from effivlm.report.rows import summarise

Header = dict[str, Any]
INTERRUPTED = "interrupted"


def read(path: Path) -> tuple[Header, list[Outcome], dict[str, Any] | None]:
    """Read a run's outcomes.jsonl: its header, its outcomes in order, and its end line (None if it never ended).

    Lines that cannot be read (a crash cuts the last one) are left out and named in header["notes"]. Raises ValueError
    for a file without a header or of another schema, OSError if there is no file.
    """
    header: Header | None = None
    outcomes: list[Outcome] = []
    end: dict[str, Any] | None = None
    notes: list[str] = []
    for place, record in records(path):
        kind = None if record is None else record.get("kind")
        if record is None:
            notes.append(f"line {place} is cut or damaged and was left out")
        elif kind == "run":
            _check_schema(record, path, place)
            header, end = header or record, None
        elif header is None:
            raise ValueError(f"{path} does not begin with a run header: line {place} is of kind {kind!r}")
        elif kind == "outcome":
            outcomes.append(_outcome(record, path, place))
        elif kind == "end":
            end = record
    if header is None:
        raise ValueError(f"{path} holds no run header, so it is not a record of a run")
    return {**header, "notes": [*header.get("notes", []), *notes]}, outcomes, end


def records(path: Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Line numbers and objects of a file of JSON lines; None stands for a line that is not a JSON object."""
    with Path(path).open("rb") as lines:
        for place, line in enumerate(lines, start=1):
            if line.strip():
                yield place, _object(line)


def build(header: Header, outcomes: Iterable[Outcome], end: Mapping[str, Any] | None) -> dict[str, Any]:
    """Make the document (report.json, schema 1) of a run; of several outcomes of one cell and part the last counts."""
    latest = {(outcome.cell, outcome.part): outcome for outcome in outcomes}
    groups: dict[tuple[str, str], dict[Cell, list[Outcome]]] = {}
    for outcome in latest.values():
        if outcome.status == "ok":
            groups.setdefault(outcome.cell.group, {}).setdefault(outcome.cell, []).append(outcome)
    rows = [row for group in groups.values() for row in describe(list(group.values()))]
    skipped = [_unmeasured(outcome) for outcome in latest.values() if outcome.status == "unsupported"]
    failed = [_unmeasured(outcome) for outcome in latest.values() if outcome.status in ("failed", INTERRUPTED)]
    run = {key: value for key, value in header.items() if key not in ("kind", "schema")}
    run["status"] = (end or {}).get("status") or INTERRUPTED
    run["end"] = None if end is None else {key: value for key, value in end.items() if key != "kind"}
    run["counts"] = _counts(list(latest.values()), len(rows), skipped, failed)
    run["bootstrap"] = {"rounds": ROUNDS, "level": LEVEL, "least": LEAST}
    cells = [row.data for row in rows]
    return {
        "schema": SCHEMA,
        "run": run,
        "cells": cells,
        "summary": summarise(rows),
        "published": overlay(cells),
        "skipped": skipped,
        "failed": failed,
    }


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _check_schema(record: Mapping[str, Any], path: Path, place: int) -> None:
    if record.get("schema") != SCHEMA:
        raise ValueError(
            f"{path} line {place} has schema {record.get('schema')!r}; this version of effivlm reads schema {SCHEMA}"
        )


def _outcome(record: Mapping[str, Any], path: Path, place: int) -> Outcome:
    try:
        return Outcome.from_json(record)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} line {place} is no outcome of schema {SCHEMA}: {error}") from error


def _unmeasured(outcome: Outcome) -> dict[str, Any]:
    """A cell without a result; what it kept, where that was told, stands beside the reason."""
    kept = outcome.achieved and as_stored(outcome.achieved)
    facts = {"part": outcome.part, "status": outcome.status, "reason": outcome.reason}
    return {**name(outcome.cell), **facts, "achieved": kept}


def _counts(latest: Sequence[Outcome], ok: int, skipped: Sequence[Any], failed: Sequence[Any]) -> dict[str, int]:
    measured = [outcome for outcome in latest if outcome.status == "ok"]
    samples: dict[str, set[str]] = {}
    for outcome in measured:
        samples.setdefault(outcome.cell.task, set()).update([answer.id for answer in outcome.answers])
    return {
        "cells": ok,
        "skipped": len(skipped),
        "failed": len(failed),
        "broken": sum(outcome.broken for outcome in measured),
        "samples": sum(map(len, samples.values())),
        "models": len({outcome.cell.model for outcome in measured}),
        "methods": len({outcome.cell.method for outcome in measured}),
        "tasks": len({outcome.cell.task for outcome in measured}),
    }
