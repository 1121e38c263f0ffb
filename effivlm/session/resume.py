"""Going on with a run: its record is checked before anything runs, and of its outcomes only those of this plan stand."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from effivlm.records import SCHEMA, Cell, Outcome, Settings
from effivlm.report.conditions import differing
from effivlm.report.strict import strict
from effivlm.session.judges import JUDGES, NONE, judged_name, rubric_named
from effivlm.session.matrix import Plan
from effivlm.session.recorder import FILE, Key

KINDS = ("run", "outcome", "sample", "kept", "end")
MEASURED = ("ok", "unsupported")
Header = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Standing:
    """What a run folder holds for a session: outcomes that need no second run, and `outdated` ones.

    An outdated outcome is another measurement under the same name: {"cell": id, "part", "fingerprint", "reason"}. The
    session's header lists them, so that no report shows them as this run's. `sessions` wrote into the folder so far;
    `failed` holds the number of the one in which the answers of a cell failed. `unmarked` has all its answers, and waits for a
    judge's marks, of some of them or of all.
    """

    reusable: Mapping[Key, Outcome] = field(default_factory=dict)
    outdated: tuple[dict[str, str], ...] = ()
    sessions: int = 0
    failed: Mapping[Cell, int] = field(default_factory=dict)
    unmarked: Mapping[Cell, Outcome] = field(default_factory=dict)


def standing(folder: Path, plan: Plan, settings: Settings, now: Header | None = None) -> Standing:
    """Judge the outcomes in `folder` by the fingerprints of `plan` and by the header `now` of the session to come.

    `now` None: the session has begun, and its header is the last one there. A folder without a record holds nothing.
    Raises ValueError for a file that is no record of a run of this schema; names the line.
    """
    reusable: dict[Key, Outcome] = {}
    outdated = []
    failed: dict[Cell, int] = {}
    unmarked: dict[Cell, Outcome] = {}
    found, headers = _last(folder / FILE)
    last = headers[-1] if headers else {}
    for key, (outcome, session) in found.items():
        header = headers[session - 1]
        if outcome.status == "failed" and outcome.part == "quality":
            failed[outcome.cell] = session
        if waits := _waiting(outcome, header, now or last, plan, settings):
            unmarked[outcome.cell] = waits
        elif reason := _other(outcome, header, now or last, plan, settings):
            names = {"cell": outcome.cell.id, "part": outcome.part, "fingerprint": outcome.fingerprint}
            outdated.append({**names, "reason": reason})
        elif outcome.status in MEASURED and outcome.cell.model in plan.sources:
            reusable[key] = outcome
    return Standing(reusable, tuple(outdated), len(headers), failed, unmarked)


def _waiting(outcome: Outcome, before: Header, now: Header, plan: Plan, settings: Settings) -> Outcome | None:
    """An outcome of which this session wants nothing but marks, under the fingerprint of its answers; None for any other."""
    asked = (
        settings.judge not in ("", NONE)
        and not settings.shard
        and outcome.part == "quality"
        and outcome.cell.model in plan.sources
    )
    if not asked or not outcome.answers or differing(before, now, "quality"):
        return None
    if not rubric_named(outcome.cell.task, settings):
        return None
    from effivlm.run.group import cell_fingerprint  # here, for these bring scorers, and collecting needs none
    from effivlm.run.scoring import WAITS
    from effivlm.session.judged import NO_MARK

    answers = cell_fingerprint(outcome.cell, plan.sources[outcome.cell.model], settings)
    lacks = outcome.status == "failed" or any(one.error.startswith(NO_MARK) for one in outcome.answers)
    same = lacks and outcome.fingerprint == judged_name(answers, outcome.cell.task, settings)
    stored = outcome.reason == WAITS and outcome.fingerprint == answers
    return replace(outcome, fingerprint=answers) if same or stored else None


def fingerprint_of(outcome_of: Key, plan: Plan, settings: Settings) -> str:
    from effivlm.run.group import cell_fingerprint

    cell, part = outcome_of
    name = cell_fingerprint(cell, plan.sources[cell.model], settings, part)
    return judged_name(name, cell.task, settings) if part == "quality" else name


def checked(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers and records of a run's file; a line cut short by a kill is passed over.

    Raises ValueError for a file that a session must not add to: not begun by a run's header, of another schema, or with
    lines of another program.
    """
    begun = False
    for place, line in _lines(path):
        try:
            record = strict(line)
        except ValueError:
            if not begun:
                raise ValueError(f"{path} line {place} is not JSON: this file is no record of a run") from None
            continue
        _check(record, path, place, begun)
        begun = True
        yield place, record
    if not begun:
        raise ValueError(f"{path} holds no run header: this file is no record of a run")


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        for place, line in enumerate(file, start=1):
            if line.strip():
                yield place, line


def _check(record: Any, path: Path, place: int, begun: bool) -> None:
    at = f"{path} line {place}"
    if not isinstance(record, dict):
        raise ValueError(f"{at} is {_short(record)}, not a record of a run: nothing is added to this file")
    kind = record.get("kind")
    if kind not in KINDS:
        raise ValueError(
            f"{at} is of kind {_short(kind)}, not one of {', '.join(KINDS)}: nothing is added to this file"
        )
    if not begun and kind != "run":
        raise ValueError(
            f"{at} is of kind {kind!r}, and a run's header must stand before it: nothing is added to this file"
        )
    if kind == "run" and record.get("schema") != SCHEMA:
        raise ValueError(
            f"{at} has schema {_short(record.get('schema'))}; this version of effivlm writes schema {SCHEMA}"
        )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def _last(path: Path) -> tuple[dict[Key, tuple[Outcome, int]], list[Header]]:
    """The last word on each part of each cell, with the number of the session that gave it, from 1; and all headers."""
    found: dict[Key, tuple[Outcome, int]] = {}
    headers: list[Header] = []
    for place, record in checked(path) if path.exists() else ():
        if record["kind"] == "run":
            headers.append(record)
        elif record["kind"] == "outcome":
            try:
                outcome = Outcome.from_json(record)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
                raise ValueError(f"{path} line {place} is no outcome of schema {SCHEMA}: {what}") from None
            found[outcome.cell, outcome.part] = (outcome, len(headers))
    return found, headers


def _other(outcome: Outcome, before: Header, now: Header, plan: Plan, settings: Settings) -> str:
    """Why an outcome is not what this session would measure; "" where it is."""
    if words := differing(before, now, outcome.part):
        return "; ".join(words)
    known = outcome.cell.model in plan.sources and outcome.fingerprint
    if known and outcome.fingerprint != fingerprint_of((outcome.cell, outcome.part), plan, settings):
        return _cause(outcome, before, now)
    return ""


def _cause(outcome: Outcome, before: Header, now: Header) -> str:
    """What changed beside the settings, as far as headers tell."""
    weights = [(header.get("checkpoints") or {}).get(outcome.cell.model) for header in (before, now)]
    if None not in weights and weights[0] != weights[1]:
        return f"the checkpoint {outcome.cell.model} changed"
    asked = [[(header.get("settings") or {}).get(word) for word in JUDGES] for header in (before, now)]
    if outcome.scoring == "judge" and asked[0] != asked[1]:
        return f"answers to {outcome.cell.task} are marked by another judge, or another number of times"
    scored = [(header.get("settings") or {}).get("scoring", "fixed") for header in (before, now)]
    if scored[0] != scored[1]:
        return f"answers to {outcome.cell.task} are scored by the profile {scored[1]}, before by {scored[0]}"
    if before.get("versions") != now.get("versions"):
        return "versions of libraries changed"
    return "the code of its method, task or model changed"
