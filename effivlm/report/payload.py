"""The data inside the page: the document's numbers as rows of few digits, so that 10,000 cells stay small."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from effivlm.report.costs import SPEEDUPS
from effivlm.report.samples import Changed

REASON = 2000
CELLS_NAMED = 20
PICTURES = 4_000_000
CELL_COLUMNS = [
    "model",
    "setting",
    "task",
    "n",
    "broken",
    "score",
    "scale",
    "low",
    "high",
    "ratio",
    "rlow",
    "rhigh",
    "same",
    "exact",
    "agree",
    "p",
    "better",
    "worse",
    "ttft",
    "tlow",
    "thigh",
    "decode",
    "dlow",
    "dhigh",
    "ttft_s",
    "decode_ms",
    "of",
    "asked",
    "kept",
    "total",
    "keep",
    "kv",
    "kv_dense",
    "visual",
    "remarks",
    "random",
]
ROW_COLUMNS = [
    "model",
    "setting",
    "op",
    "low",
    "high",
    "mean",
    "tasks",
    "set",
    "undefined",
    "ol",
    "ollow",
    "olhigh",
    "og",
    "ogm",
    "ttft",
    "decode",
    "kv",
    "front",
]


def payload(document: Mapping[str, Any], samples: Changed) -> dict[str, Any]:
    """Everything the page's script reads; names are stored once and meant by their place."""
    settings, models, tasks, remarks, kinds = (_Places() for _ in range(5))
    cells = [_cell(one, models, settings, tasks, remarks, kinds) for one in document["cells"]]
    shown, pictures = _pictures(samples.shown)
    metric_of = {one["task"]: one["metric"] for one in document["cells"] if one["metric"]}
    return {
        "cellColumns": CELL_COLUMNS,
        "cells": cells,
        "rowColumns": ROW_COLUMNS,
        "rows": _rows(document["summary"], models, settings),
        "models": models.names,
        "settings": settings.names,
        "tasks": tasks.names,
        "metrics": [metric_of.get(task, "") for task in tasks.names],
        "remarks": remarks.names,
        "kinds": kinds.names,
        "changed": {"shown": shown, "total": samples.total},
        "pictures": pictures,
        "unmeasured": _reasons([*document["failed"], *document["skipped"]]),
    }


def embed(data: Any) -> str:
    """JSON that can stand inside a script element: no "<", ">" or "&" is left that could end it."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return (
        text.replace("&", "\\u0026")
        .replace("<", "\\u003c")
        .replace(">", "\\u003e")
        .replace("\u2028", "\\u2028")
        .replace("\u2029", "\\u2029")
    )


class _Places:
    """Names in order of appearance and their places."""

    def __init__(self) -> None:
        self.names: list[Any] = []
        self._known: dict[Any, int] = {}

    def __contains__(self, name: Any) -> bool:
        return name in self._known

    def __call__(self, name: Any) -> int:
        key = tuple(name) if isinstance(name, list) else name
        if key not in self._known:
            self._known[key] = len(self.names)
            self.names.append(name)
        return self._known[key]


def _cell(
    cell: Mapping[str, Any], models: _Places, settings: _Places, tasks: _Places, remarks: _Places, kinds: _Places
) -> list[Any]:
    loyal, paired, achieved = cell["loyalty"] or {}, cell["paired"] or {}, cell["achieved"] or {}
    faster = [number for word in SPEEDUPS for number in _speedup(cell["speedups"][word])]
    medians = [(cell["costs"].get(cost) or {}).get("median") for cost in SPEEDUPS.values()]
    numbers = [
        *(cell["n"], cell["broken"], cell["score"], cell["scale"], *_ends(cell["interval"])),
        *(
            cell["ratio"],
            *_ends(cell["ratio_interval"]),
            loyal.get("same"),
            loyal.get("exact"),
            loyal.get("score_agreement"),
        ),
        *(paired.get("p"), paired.get("better"), paired.get("worse"), *faster, *medians),
    ]
    counts = [
        achieved.get(key)
        for key in ("asked_keep", "kept", "total", "keep", "kv_bytes", "kv_bytes_dense", "visual_tokens")
    ]
    return [
        *(models(cell["model"]), settings(_setting(cell)), tasks(cell["task"]), *map(_few_digits, numbers)),
        *(kinds(achieved["of"]) if achieved else None, *map(_few_digits, counts)),
        *([remarks(remark) for remark in cell["remarks"]], int(cell["weights"] == "random")),
    ]


def _rows(summary: Mapping[str, Any], models: _Places, settings: _Places) -> list[list[Any]]:
    """One row for each scope and setting; the scope of all models together is -1 and has no OP."""
    found: dict[tuple[int, int], dict[str, Any]] = {}

    def put(row: Mapping[str, Any], **values: Any) -> None:
        scope = models(row["models"][0]) if len(row["models"]) == 1 else -1
        target = found.setdefault((scope, settings(_setting(row))), {})
        for key, value in values.items():
            target.setdefault(key, value)  # rows of the common set come first and stay

    for row in summary["op"]:
        low, high = _ends(row["interval"])
        shared = {"tasks": row["n"], "set": row["set"], "undefined": row["undefined"]}
        put(row, op=row["value"], low=low, high=high, mean=row["mean"], **shared)
    for row in summary["ol"]:
        low, high = _ends(row["interval"])
        put(row, ol=row["value"], ollow=low, olhigh=high, tasks=row["n"], set=row["set"])
    for row in summary["og"]:
        put(row, **{"og" if row["over"] == "tasks" else "ogm": row["value"]})
    for row in summary["oe"]:
        put(row, **{row["of"]: row["value"]}, tasks=row["n"], set=row["set"])
    for row in summary["pareto"]:
        put(row, kv=row["costs"]["kv"], front=row["front"])
    return [[*key, *(_few_digits(values.get(column)) for column in ROW_COLUMNS[2:])] for key, values in found.items()]


def _pictures(shown: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """Each picture once, and samples that name it by its place; pictures past 4 MB in all are left out."""
    places = _Places()
    left, found = PICTURES, []
    for one in shown:
        picture = one["thumbnail"]
        if picture is not None and picture not in places:
            left -= len(picture)
        fits = picture is not None and (picture in places or left >= 0)
        found.append({**one, "thumbnail": places(picture) if fits else None})
    return found, places.names


def _setting(row: Mapping[str, Any]) -> list[Any]:
    return [row["method"], row["preset"], row["keep"]]


def _speedup(measured: Mapping[str, Any] | None) -> list[float | None]:
    return [measured["value"], *_ends(measured["interval"])] if measured else [None, None, None]


def _ends(interval: Sequence[float] | None) -> Sequence[float | None]:
    return interval or (None, None)


def _few_digits(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _reasons(unmeasured: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Cells without a result by status and reason, the commonest reason first within a status."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for one in unmeasured:
        key = (one["status"], one["reason"][:REASON])
        entry = found.setdefault(key, {"status": key[0], "reason": key[1], "count": 0, "cells": []})
        entry["count"] += 1
        if len(entry["cells"]) < CELLS_NAMED:
            entry["cells"].append(f"{one['id']} ({one['part']})")
    return sorted(found.values(), key=lambda entry: (entry["status"] == "unsupported", -entry["count"]))
