"""What the gate compares: a run folder, a report.json or a baseline file, read into one form; and writing a baseline."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from effivlm.metrics.units import units as units_of
from effivlm.records import SCHEMA, Answer, Outcome, dump
from effivlm.report.conditions import Conditions, conditions, machines
from effivlm.report.document import build, read
from effivlm.report.strict import strict
from effivlm.report.trust import TIMED, own_doubts

OUTCOMES, DOCUMENT = "outcomes.jsonl", "report.json"
DIGITS = 6  # of a stored score; both sides are rounded alike, so that a run never differs from its own baseline
Key = tuple[str, str]
Set = tuple[str, tuple[str, ...], str, tuple[str, ...], tuple[str, ...]]
# What the gate looks at; the rest of a cell can be made again from its run and would fill a committed file.
KEPT = (
    *("id", "model", "method", "preset", "keep", "task", "fingerprints", "metric", "answer_type", "scale", "n"),
    *("broken", "score", "interval", "achieved", "costs", "weights", "judged", "profile"),
)

LATER = ("judged", "profile")  # a baseline of before this was stored is without it


@dataclass(frozen=True, slots=True)
class Measured:
    """One cell of a side. `ids`, `scores` and `prompts` (a digest of the questions) are empty where only a document is
    known; a score is None where the sample broke; `places` are the parts of the benchmark that samples count in, where the
    score is a mean over such parts (`average`). `units` names what each sample is drawn with, where pictures that samples share
    tell more than their `group` does. `where` and `engines` are by part, `untrusted` holds reasons by timing.
    """

    data: Mapping[str, Any]
    where: Mapping[str, Conditions]
    engines: Mapping[str, str] = field(default_factory=dict)
    untrusted: Mapping[str, Sequence[str]] = field(default_factory=dict)
    group: int = 1
    ids: tuple[str, ...] = ()
    prompts: str = ""
    scores: tuple[float | None, ...] = ()
    average: str = "samples"
    places: tuple[str, ...] = ()
    units: tuple[str, ...] = ()

    @property
    def drawn_with(self) -> Sequence[str]:
        """The name of the unit that each sample is drawn with."""
        return self.units or units_of(self.ids, self.group)

    @property
    def id(self) -> str:
        return str(self.data["id"])

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(self.data["fingerprints"])


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two things compared. `unmeasured`: why a (cell id, part) has no measurement; `cells` are by id."""

    name: str
    run: Mapping[str, Any]
    cells: Mapping[str, Measured]
    unmeasured: Mapping[Key, str]

    @property
    def names(self) -> set[str]:
        """Models, methods and tasks: what a tolerance may be limited to."""
        return {str(one.data[word]) for one in self.cells.values() for word in ("model", "method", "task")}


def load(path: Path | str) -> Side:
    """Read a run folder (or its outcomes.jsonl or report.json) or a baseline file.

    A report.json without its outcomes.jsonl holds no score of a single sample, so scores compare unpaired.
    Raises ValueError for anything else and for another schema, OSError where it cannot be read.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    if path.is_dir() or path.name in (OUTCOMES, DOCUMENT):
        if (folder / OUTCOMES).is_file():
            header, outcomes, end = read(folder / OUTCOMES)
            return of_run(build(header, outcomes, end), outcomes, str(path))
        path = folder / DOCUMENT if path.is_dir() else path
    if not path.is_file():
        raise ValueError(f"{path} is no run folder, report.json or baseline: there is no such file")
    return _stored(path)


def of_run(document: Mapping[str, Any], outcomes: Iterable[Outcome], name: str) -> Side:
    """The side of a finished run, from its document and its outcomes."""
    latest = {(outcome.cell.id, outcome.part): outcome for outcome in outcomes}
    cells, known = {}, machines(document["run"])
    for data in document["cells"]:
        outcome = latest.get((data["id"], "quality"))
        answers = outcome.answers if outcome and outcome.status == "ok" else ()
        cells[data["id"]] = Measured(
            data={key: _short(key, data.get(key)) for key in KEPT},
            where=conditions(document["run"], known, data),
            engines={part: latest[data["id"], part].engine for part in data["fingerprints"]},
            untrusted=_untrusted(data),
            group=outcome.group if outcome else 1,
            ids=tuple(answer.id for answer in answers),
            prompts=_digest(answer.prompt_sha256 for answer in sorted(answers, key=lambda one: one.id)),
            scores=tuple(None if answer.score is None else round(answer.score, DIGITS) for answer in answers),
            average=outcome.average if outcome else "samples",
            places=tuple(answer.part for answer in answers) if outcome and outcome.average == "parts" else (),
            units=_units(answers, outcome.group) if outcome else (),
        )
    return Side(name, document["run"], cells, _reasons(document))


def _units(answers: Sequence[Answer], group: int) -> tuple[str, ...]:
    """The unit of each sample, () where ids tell it."""
    ids = [answer.id for answer in answers]
    found = units_of(ids, group, [answer.pictures for answer in answers])
    return tuple(found) if found != units_of(ids, group) else ()


def write_baseline(path: Path, side: Side) -> None:
    """Write `side` as a baseline: one line a cell, so that a change of it can be read as a difference of lines.

    Raises:
        ValueError: the run did not finish, has failed cells, or measured nothing.
        OSError: `path` cannot be written.
    """
    failed = [f"{cell} ({part})" for (cell, part), why in side.unmeasured.items() if not why.startswith("unsupported")]
    if side.run["status"] != "finished":
        raise ValueError(f"no baseline was written: the run is {side.run['status']}, not finished")
    if failed:
        raise ValueError(f"no baseline was written: {len(failed)} cases failed, the first is {failed[0]}")
    if not side.cells:
        raise ValueError("no baseline was written: nothing was measured")
    sets = list(dict.fromkeys(_set(one) for one in side.cells.values() if one.ids))
    cells = [_cell(one, sets) for one in side.cells.values()]
    unmeasured = [[*key, why] for key, why in side.unmeasured.items()]
    text = "".join(
        [
            f'{{"kind":"baseline","schema":{SCHEMA},\n"run":{dump(side.run)},\n"sets":[\n',
            ",\n".join(dump(_stored_set(*one)) for one in sets),
            '\n],\n"cells":[\n',
            ",\n".join(dump(cell) for cell in cells),
            f'\n],\n"unmeasured":{json.dumps(unmeasured, ensure_ascii=False)}}}\n',
        ]
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode("utf-8", "replace"))  # half a surrogate pair has no UTF-8 form


def _score(value: Any, of: str) -> float:
    """A score as it is stored; one that is no number in [0, 1] could hide a drop."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{of} has the score {value!r}, which is no number in [0, 1]")
    return float(value)


def _set(one: Measured) -> Set:
    return (str(one.data["task"]), one.ids, one.prompts, one.places, one.units)


def _stored_set(
    task: str, ids: Sequence[str], prompts: str, places: Sequence[str], units: Sequence[str]
) -> dict[str, Any]:
    more = {name: held for name, held in (("parts", places), ("units", units)) if held}
    return {"task": task, "ids": ids, "prompts": prompts, **more}


def _cell(one: Measured, sets: Sequence[Set]) -> dict[str, Any]:
    return {
        **one.data,
        "engines": dict(one.engines),
        **({"untrusted": dict(one.untrusted)} if one.untrusted else {}),
        "group": one.group,
        **({"average": one.average} if one.average != "samples" else {}),
        "set": sets.index(_set(one)) if one.ids else None,
        "scores": [int(score) if score in (0, 1) else score for score in one.scores],
    }


def _short(key: str, value: Any) -> Any:
    if key == "achieved" and value:
        return {name: held for name, held in value.items() if name not in ("per_layer", "per_head", "parts")}
    if key == "costs":
        return {name: {"rounds": cost["rounds"], "median": cost["median"]} for name, cost in value.items()}
    return value


def _untrusted(cell: Mapping[str, Any]) -> dict[str, list[str]]:
    found = {word: own_doubts(cell, word) for word in TIMED}
    return {word: reasons for word, reasons in found.items() if reasons}


def _digest(prompts: Iterable[str]) -> str:
    text = " ".join(prompts)
    return hashlib.sha256(text.encode()).hexdigest()[:20] if text else ""


def _reasons(document: Mapping[str, Any]) -> dict[Key, str]:
    rows = [*document["skipped"], *document["failed"]]
    return {(row["id"], row["part"]): f"{row['status']}: {row['reason']}" for row in rows}


def _stored(path: Path) -> Side:
    try:
        stored = strict(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON, so it is no report.json and no baseline: {error}") from None
    if not isinstance(stored, dict) or "cells" not in stored or "run" not in stored:
        raise ValueError(f"{path} is no report.json and no baseline: it has no run and cells")
    if stored.get("schema") != SCHEMA:
        raise ValueError(f"{path} has schema {stored.get('schema')!r}; this version of effivlm reads schema {SCHEMA}")
    try:
        if stored.get("kind") == "baseline":
            return _of_baseline(stored, str(path))
        return of_document(stored, str(path))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}: {error}); write it again") from error


def of_document(document: Mapping[str, Any], name: str) -> Side:
    """The side of a report.json alone; it has no scores of single samples."""
    run, known = document["run"], machines(document["run"])
    cells = {
        data["id"]: Measured(
            {key: _short(key, data.get(key)) for key in KEPT},
            conditions(run, known, data),
            untrusted=_untrusted(data),
        )
        for data in document["cells"]
    }
    return Side(name, run, cells, _reasons(document))


def _of_baseline(stored: Mapping[str, Any], name: str) -> Side:
    sets = [
        (tuple(one["ids"]), str(one["prompts"]), *(tuple(one.get(name, ())) for name in ("parts", "units")))
        for one in stored["sets"]
    ]
    cells, known = {}, machines(stored["run"])
    for cell in stored["cells"]:
        ids, prompts, places, units = ((), "", (), ()) if cell["set"] is None else sets[cell["set"]]
        if units and len(units) != len(ids):
            raise ValueError(f"{cell['id']} has {len(units)} units of {len(ids)} samples")
        if len(cell["scores"]) != len(ids):
            raise ValueError(f"{cell['id']} has {len(cell['scores'])} scores of {len(ids)} samples")
        data = {key: cell.get(key) if key in LATER else cell[key] for key in KEPT}
        scores = tuple(None if score is None else _score(score, cell["id"]) for score in cell["scores"])
        where, engines = conditions(stored["run"], known, cell), dict(cell["engines"])
        doubted, group = dict(cell.get("untrusted", {})), int(cell["group"])
        average = str(cell.get("average", "samples"))
        told = (group, ids, prompts, scores, average, places, units)
        cells[str(cell["id"])] = Measured(data, where, engines, doubted, *told)
    unmeasured = {(str(cell), str(part)): str(why) for cell, part, why in stored["unmeasured"]}
    return Side(name, stored["run"], cells, unmeasured)
