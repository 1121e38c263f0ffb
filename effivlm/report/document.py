"""From the lines of a run to its document: `read` outcomes.jsonl, `build` report.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from effivlm.metrics.statistics import LEAST, LEVEL, ROUNDS
from effivlm.records import SCHEMA, Cell, Outcome
from effivlm.report.cells import as_stored, describe, name
from effivlm.report.collector import paused
from effivlm.report.compositions import compositions
from effivlm.report.conditions import differing
from effivlm.report.families import settle
from effivlm.report.judges import judges
from effivlm.report.parameters import parameters
from effivlm.report.published import overlay
from effivlm.report.rows import summarise
from effivlm.report.strict import records
from effivlm.report.suites import of_suites

Header = dict[str, Any]
INTERRUPTED = "interrupted"


@paused()
def read(
    path: Path, beside: Callable[[Mapping[str, Any]], None] = lambda record: None
) -> tuple[Header, list[Outcome], dict[str, Any] | None]:
    """Read a run's outcomes.jsonl: its header, its outcomes in order, and its end line (None if it never ended).

    `beside` is given the lines of any other kind as they come, so that who wants them reads the file no second time.

    Of a run that was gone on with, the last session's header counts, with the first one's start; outcomes that it would
    measure differently (another seed, precision, checkpoint, code ...) are left out, and so are lines that cannot be read (a
    crash cuts the last one); header["notes"] says which.
    Raises ValueError for a file without a header or of another schema, OSError if there is no file.
    """
    headers: list[Header] = []
    outcomes: list[tuple[Outcome, int]] = []  # with the number of sessions begun until then
    end: dict[str, Any] | None = None
    notes: list[str] = []
    for place, record in records(path):
        kind = None if record is None else record.get("kind")
        if record is None:
            notes.append(f"line {place} is cut or damaged and was left out")
        elif kind == "run":
            _check_schema(record, path, place)
            headers.append(record)
            end = None
        elif not headers:
            raise ValueError(f"{path} does not begin with a run header: line {place} is of kind {kind!r}")
        elif kind == "outcome":
            outcomes.append((_outcome(record, path, place), len(headers)))
        elif kind == "end":
            end = record
        else:
            beside(record)
    if not headers:
        raise ValueError(f"{path} holds no run header, so it is not a record of a run")
    standing, left_out = _standing(outcomes, headers)
    header = {**headers[0], **headers[-1], "started": headers[0].get("started")}
    header.pop("outdated", None)
    return {**header, "notes": [*header.get("notes", []), *notes, *left_out]}, standing, end


def _standing(outcomes: Sequence[tuple[Outcome, int]], headers: Sequence[Header]) -> tuple[list[Outcome], list[str]]:
    """Outcomes that the last session would measure alike, and a note on each reason for which others were left out.

    A session that goes on with a run says in its header what it found `outdated`: other weights, code or versions.
    """
    known = {
        (number, *(one.get(word) for word in ("cell", "part", "fingerprint"))): str(one.get("reason"))
        for number, header in enumerate(headers)
        for one in header.get("outdated", ())
    }
    standing, left_out = [], {}
    for outcome, session in outcomes:
        told = "; ".join(differing(headers[session - 1], headers[-1], outcome.part))
        names = (outcome.cell.id, outcome.part, outcome.fingerprint)
        later = (known[number, *names] for number in range(session, len(headers)) if (number, *names) in known)
        if reason := told or next(later, ""):
            left_out[outcome.cell, outcome.part] = reason
        else:
            standing.append(outcome)
    again = {(outcome.cell, outcome.part) for outcome in standing}
    reasons = Counter(reason for key, reason in left_out.items() if key not in again)
    notes = [f"{count} outcomes of an earlier session were left out: {why}" for why, count in reasons.items()]
    return standing, notes


@paused()
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
    cells, summary = [row.data for row in rows], summarise(rows)
    composed = compositions(rows)
    whole, refused = of_suites(rows)
    summary["refused"] += refused
    run["discoveries"] = settle(cells, summary["op"], composed)
    return {
        "schema": SCHEMA,
        "run": run,
        "cells": cells,
        "summary": summary,
        "parameters": parameters(cells, summary),
        "compositions": composed,
        "suites": whole,
        "judges": judges(cells),
        "published": overlay(cells),
        "skipped": skipped,
        "failed": failed,
    }


def _check_schema(record: Mapping[str, Any], path: Path, place: int) -> None:
    if record.get("schema") != SCHEMA:
        raise ValueError(
            f"{path} line {place} has schema {record.get('schema')!r}; this version of effivlm reads schema {SCHEMA}"
        )


def _outcome(record: Mapping[str, Any], path: Path, place: int) -> Outcome:
    try:
        return Outcome.from_json(record)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
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
