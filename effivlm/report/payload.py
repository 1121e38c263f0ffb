"""The numbers inside the page: the document's cells and rows as columns of few digits, so that 10,000 cells stay small."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import ROUND_05UP, Context
from typing import Any

from effivlm.metrics.profiles import FIXED
from effivlm.report import budgets
from effivlm.report.costs import BESIDE, FLOORS, SPEEDUPS
from effivlm.report.trust import doubts, loose

REASON = 2000
CELLS_NAMED = 20
NUMBER = re.compile(r"\d+(?:\.\d+)?")
TIMINGS = {"ttft": "TTFT", "decode": "decode", "batch": "batch"}
FLIPS = ("right_to_wrong", "wrong_to_right", "both_right", "both_wrong_same", "both_wrong_different")
_FEW = Context(prec=6, rounding=ROUND_05UP)  # no last digit of 0 or 5 unless it is exact: ready to be rounded again
_LOYALTY = ("same", "exact", "score_agreement", "soft", "prefix", "forced", "kappa")
_NOISE = ("same", "exact", "soft", "prefix", "forced", "n")
_KEPT = ("asked", "counted", "asked_keep", "kept", "total", "keep", "kv_bytes", "kv_bytes_dense", "visual_tokens")
WORDS = ("models", "settings", "tasks", "remarks", "kinds", "layers", "noises", "figures", "reasons")
_ROW = (
    *("model", "setting", "op", "low", "high", "mean", "detectable", "tasks", "set", "undefined"),
    *("vs", "vslow", "vshigh", "verdict"),
    *("ol", "ollow", "olhigh", "olnoise", "free", "oltasks"),
    *("og", "oglow", "oghigh", "ogtasks", "ogm", "ogmodels"),
    *("ttft", "tlow", "thigh", "decode", "dlow", "dhigh", "batch", "blow", "bhigh"),
    *("kv", "front"),
)


def payload(document: Mapping[str, Any]) -> dict[str, Any]:
    """Everything the page's script reads beside samples; names are stored once and meant by their place."""
    names = {word: Places() for word in WORDS}
    failed = {one["id"] for one in document["failed"] if one["part"] == "quality"}
    cells = [{**_cell(one, names), "failed": one["id"] in failed or None} for one in document["cells"]]
    rows = _rows(document["summary"], names["models"], names["settings"])
    metric_of = {one["task"]: one["metric"] for one in document["cells"] if one["metric"]}
    kept = _kept(document, names)
    return {
        "cells": columns(cells),
        "rows": columns(rows),
        **{word: places.names for word, places in names.items()},
        "sets": [_set(document["cells"], task) for task in names["tasks"].names],
        "metrics": [metric_of.get(task, "") for task in names["tasks"].names],
        "ofs": _ofs(document["cells"], names),
        **_places(names["settings"].names),
        "least": document["run"].get("bootstrap", {}).get("least", 0),
        "discoveries": document["run"].get("discoveries"),
        "missed": kept,
        "refused": document["summary"].get("refused", []),
        "published": document.get("published", []),
        "unmeasured": _reasons([*document["failed"], *document["skipped"]]),
    }


def _set(cells: Iterable[Mapping[str, Any]], task: str) -> str:
    """Which states of its set the samples of a task are of, and the profile of its scores where that is not `fixed`."""
    own = [cell for cell in cells if cell["task"] == task]
    sets = dict.fromkeys(one for cell in own if (one := cell.get("samples_from")))
    profiles = dict.fromkeys(one for cell in own if (one := cell.get("profile", FIXED)) != FIXED)
    return ", ".join([f"samples of {one}" for one in sets] + [f"scored by the profile {one}" for one in profiles])


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


class Places:
    """Names in order of appearance and their places."""

    def __init__(self) -> None:
        self.names: list[Any] = []
        self._known: dict[Any, int] = {}

    def __contains__(self, name: Any) -> bool:
        return _key(name) in self._known

    def __call__(self, name: Any) -> int:
        key = _key(name)
        if key not in self._known:
            self._known[key] = len(self.names)
            self.names.append(name)
        return self._known[key]


def _key(name: Any) -> Any:
    return tuple(name) if isinstance(name, list) else json.dumps(name) if isinstance(name, Mapping) else name


def columns(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Entries by column: {"all": value} where every entry has the same value, else the list of values."""
    if not entries:
        return {"length": 0, "columns": {}}
    found: dict[str, Any] = {}
    for column in entries[0]:
        values = [entry[column] for entry in entries]
        found[column] = {"all": values[0]} if all(value == values[0] for value in values) else values
    return {"length": len(entries), "columns": found}


def _cell(cell: Mapping[str, Any], names: Mapping[str, Places]) -> dict[str, Any]:
    loyal, achieved = cell["loyalty"] or {}, cell["achieved"] or {}
    low, high = _ends(cell["interval"])
    ratio_low, ratio_high = _ends(cell["ratio_interval"])
    same_low, same_high = _ends(loyal.get("interval"))
    kl = loyal.get("kl") or {}
    kl_low, kl_high = _ends(kl.get("interval"))
    paired, flips = cell["paired"] or {}, loyal.get("flips")
    numbers = {
        **{word: cell[word] for word in ("n", "broken", "score", "scale", "ratio")},
        "low": low,
        "high": high,
        "rlow": ratio_low,
        "rhigh": ratio_high,
        "ollow": same_low,
        "olhigh": same_high,
        **{word: loyal.get(word) for word in _LOYALTY},
        "kl": kl.get("value"),
        "kllow": kl_low,
        "klhigh": kl_high,
        "klrest": kl.get("rest"),
        **{word: paired.get(word) for word in ("p", "q", "detectable", "better", "worse")},
        **_times(cell),
        **_against_random(cell.get("control")),
        "units": cell.get("units", cell["n"]),
        "invalid": (cell.get("invalid") or {}).get("rate"),
        **{word: achieved.get(word) for word in _KEPT},
    }
    return {
        "model": names["models"](cell["model"]),
        "setting": names["settings"](_setting(cell)),
        "task": names["tasks"](cell["task"]),
        **{word: few_digits(number) for word, number in numbers.items()},
        "of": names["kinds"](achieved["of"]) if achieved else None,
        "parts": _parts(achieved.get("parts", ()), names["kinds"]) or None,
        "layers": names["layers"](_layers(achieved.get("per_layer") or [])),
        "reported": _reported(cell.get("parts", {}), names["figures"]) or None,
        "flips": flips and [flips.get(word, 0) for word in FLIPS],
        "noise": _noise(cell.get("noise"), names["noises"]),
        **_doubts(cell, names["remarks"]),
        "why": _why(cell.get("why") or {}, names["reasons"]) or None,
        "engine": cell["engine"],
        "remarks": [names["remarks"](remark) for remark in cell["remarks"]],
    }


def _times(cell: Mapping[str, Any]) -> dict[str, float | None]:
    """Speed-ups with their ends, what was measured with its ends and floor, and what else is known of it."""
    found: dict[str, float | None] = {}
    for word, name in SPEEDUPS.items():
        measured, cost = cell["speedups"][word], cell["costs"].get(name) or {}
        low, high = _ends(measured and measured["interval"])
        early, late = _ends(cost.get("interval"))
        floor = (cell["costs"].get(FLOORS[word]) or {}).get("median")
        letter = word[0]
        found |= {word: measured and measured["value"], f"{letter}low": low, f"{letter}high": high}
        found |= {name: cost.get("median"), f"{letter}early": early, f"{letter}late": late, f"{letter}floor": floor}
    beside = {name: (cell["costs"].get(name) or {}).get("median") for name in (*BESIDE, "peak_memory_bytes")}
    return found | {"copies": beside.pop("batch"), **beside}


def _doubts(cell: Mapping[str, Any], remarks: Places) -> dict[str, Any]:
    """By a timing's letter: why it is untrusted, as places among the remarks, and whether it is not settled; None if neither."""
    found: dict[str, Any] = {}
    for word in SPEEDUPS:
        found[f"{word[0]}doubt"] = [remarks(reason) for reason in doubts(cell, word)] or None
        found[f"{word[0]}loose"] = bool(loose(cell, word)) or None
    return found


def _why(why: Mapping[str, Mapping[str, str]], reasons: Places) -> list[list[Any]]:
    """[place of the words, its numbers ...] of each sentence on what limits a timing: many differ in their numbers alone."""
    return [
        [reasons(NUMBER.sub("#", f"{TIMINGS[word]}: {one['text']}")), *NUMBER.findall(one["text"])]
        for word, one in why.items()
    ]


def _against_random(control: Mapping[str, Any] | None) -> dict[str, Any]:
    if control is None:
        return dict.fromkeys(("vs", "vslow", "vshigh", "verdict"))
    low, high = _ends(control["interval"])
    return {"vs": control["difference"], "vslow": low, "vshigh": high, "verdict": control["verdict"]}


def _ofs(cells: Iterable[Mapping[str, Any]], names: Mapping[str, Places]) -> list[int | None]:
    """What the budget of each setting is one of, as a place among the kinds; None for dense and where it is not known."""
    found: list[int | None] = [None] * len(names["settings"].names)
    for cell in cells:
        place = names["settings"](_setting(cell))
        if cell["achieved"] and cell["method"] != "dense":
            found[place] = names["kinds"](budgets.section(cell["keep"], cell["achieved"]["of"]))
    return found


def _places(settings: Sequence[Any]) -> dict[str, list[float]]:
    """By setting, the place of its budget on an axis of its kind, and its number among all budgets, kinds apart."""
    order = sorted({keep for _, _, keep in settings}, key=lambda keep: budgets.budget_of(keep).rank)
    return {
        "sizes": [budgets.size(keep) for _, _, keep in settings],
        "ranks": [order.index(keep) for _, _, keep in settings],
    }


def _kept(document: Mapping[str, Any], names: Mapping[str, Places]) -> list[dict[str, Any]]:
    """Cells that failed and told what they had kept: the budget audit shows them too."""
    return [
        {
            "model": names["models"](one["model"]),
            "setting": names["settings"](_setting(one)),
            "task": names["tasks"](one["task"]),
            "of": names["kinds"](achieved["of"]),
            "layers": names["layers"]([]),
            **{
                word: few_digits(achieved.get(word))
                for word in ("asked", "counted", "asked_keep", "kept", "total", "keep")
            },
        }
        for one in document["failed"]
        if (achieved := one.get("achieved"))
    ]


def _layers(per_layer: Sequence[float]) -> list[Any]:
    """Kept counts by layer; one number where all layers kept alike."""
    rounded = [round(kept, 1) for kept in per_layer]
    return [rounded[0], len(rounded)] if rounded and len(set(rounded)) == 1 else [None, *rounded] if rounded else []


def _parts(parts: Sequence[Mapping[str, Any]], kinds: Places) -> list[list[Any]]:
    """[what of, asked, kept, total, asked in its own words, counted so] of each method of a composition."""
    words = ("asked_keep", "kept", "total", "asked", "counted")
    return [[kinds(f"{one['method']}: {one['of']}"), *(few_digits(one.get(word)) for word in words)] for one in parts]


def _reported(parts: Mapping[str, Any], figures: Places) -> list[list[Any]]:
    """[name, value, low, high] of what a benchmark reports beside its score, on its published scale."""
    found: list[list[Any]] = []
    for name, one in parts.items():
        numbers = (one["score"], *_ends(one["interval"]))
        found.append([figures(name), *(None if each is None else few_digits(each * one["scale"]) for each in numbers)])
    return found


def _noise(noise: Mapping[str, Any] | None, noises: Places) -> int | None:
    if noise is None:
        return None
    return noises({**{word: few_digits(noise.get(word)) for word in _NOISE}, "change": noise.get("change")})


def _rows(summary: Mapping[str, Any], models: Places, settings: Places) -> list[dict[str, Any]]:
    """One row for each scope and setting; the scope of all models together is -1 and has no OP."""
    found: dict[tuple[int, int], dict[str, Any]] = {}

    def put(row: Mapping[str, Any], values: Mapping[str, Any], *bounds: str) -> None:
        scope = models(row["models"][0]) if len(row["models"]) == 1 else -1
        target = found.setdefault((scope, settings(_setting(row))), {})
        ends = dict(zip(bounds, _ends(row["interval"]), strict=False))
        for key, value in {**values, **ends}.items():
            target.setdefault(key, value)  # rows of the common set come first and stay

    for row in summary["op"]:
        shared = {"tasks": row["n"], "set": row["set"], "undefined": row["undefined"]}
        shared |= _against_random(row.get("control"))
        shared |= {"detectable": row.get("detectable")}
        put(row, {"op": row["value"], "mean": row["mean"], **shared}, "low", "high")
    for row in summary["ol"]:
        noise = {
            "olnoise": row.get("noise"),
            "free": row.get("free"),
            "oltasks": row["n"],
            "tasks": row["n"],
            "set": row["set"],
        }
        put(row, {"ol": row["value"], **noise}, "ollow", "olhigh")
    for row in summary["og"]:
        over = row["over"] == "tasks"
        names = ("og", "ogtasks", "oglow", "oghigh") if over else ("ogm", "ogmodels")
        put(row, {names[0]: row["value"], names[1]: row["n"]}, *names[2:])
    for row in summary["oe"]:
        letter = row["of"][0]
        put(row, {row["of"]: row["value"], "tasks": row["n"], "set": row["set"]}, f"{letter}low", f"{letter}high")
    for row in summary["pareto"]:
        put(row, {"kv": row["costs"]["kv"], "front": row["front"]})
    return [
        {"model": scope, "setting": setting, **{column: few_digits(values.get(column)) for column in _ROW[2:]}}
        for (scope, setting), values in found.items()
    ]


def _setting(row: Mapping[str, Any]) -> list[Any]:
    return [row["method"], row["preset"], row["keep"]]


def _ends(interval: Sequence[float] | None) -> Sequence[float | None]:
    return interval or (None, None)


def few_digits(value: Any) -> Any:
    """A float in six digits, of which any five and fewer are those of the value itself: the page rounds once more, and a number
    rounded twice to the nearest may be another than the terminal's."""
    return float(_FEW.create_decimal(repr(value))) if isinstance(value, float) else value


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
