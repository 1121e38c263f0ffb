"""Blocks of the terminal for what not every run has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from effivlm.report import budgets
from effivlm.report.texts import NONE, block, interval, method, number

MIB = 1 << 20


def further(document: Mapping[str, Any]) -> list[str]:
    """Methods of the checkpoint, compositions, suites; nothing where a run has none."""
    return [*_parameters(document), *_compositions(document), *_suites(document)]


def _parameters(document: Mapping[str, Any]) -> list[str]:
    """A block for each model, with a line for each way in which weights are read."""
    lines: list[str] = []
    for model in dict.fromkeys(row["model"] for row in document.get("parameters", [])):
        rows = [row for row in document["parameters"] if row["model"] == model]
        head = ("method", "asked", "counted", "OP", "as dense", "on disk", "disk / memory", "made in")
        spoken = dict.fromkeys(f"{row['asked']}: {row['speed']}" for row in rows if row["speed"])
        body = {"": [_parameter(row) for row in rows]}
        lines += block(f"{model}, methods of the checkpoint", head, body, list(spoken))
    return lines


def _parameter(row: Mapping[str, Any]) -> tuple[str, ...]:
    op, ol = row["op"] or {}, row["ol"] or {}
    return (
        method(row),
        row["asked"],
        number(row["counted"], 3),
        f"{number(op.get('value'), 3)} {interval(op.get('interval'), 3)}".rstrip(),
        number(ol.get("value"), 3),
        *_stored(row["product"]),
    )


def _stored(made: Mapping[str, Any] | None) -> tuple[str, str, str]:
    """Mebibytes on disk, of the model as it is on disk and in memory, seconds."""
    if made is None:
        return NONE, NONE, NONE
    disk, memory = (made[f"{where}_bytes"] / (made[f"{where}_bytes_dense"] or 1) for where in ("disk", "memory"))
    return f"{made['disk_bytes'] / MIB:.0f} MiB", f"{disk:.0%} / {memory:.0%}", f"{made['seconds']:.0f} s"


def _compositions(document: Mapping[str, Any]) -> list[str]:
    """A block for each model: over tasks where a composition has several, else on its task."""
    lines: list[str] = []
    found = document.get("compositions", [])
    for model in dict.fromkeys(row["model"] for row in found):
        own = [row for row in found if row["model"] == model]
        rows = [row for row in own if row["over"] == "tasks"] or own
        head = ("composition", "keep", "tasks", "OP", "methods alone", "expected", "beyond", "")
        body = {"": [_composition(row) for row in rows]}
        spoken = "beyond: score (over tasks: OP) less what is left when the losses of the methods alone add up"
        lines += block(f"{model}, compositions beside their methods alone", head, body, [spoken])
    return lines


def _composition(row: Mapping[str, Any]) -> tuple[str, ...]:
    alone = " ".join(number(part["value"], 3) for part in row["parts"])
    tasks = row["tasks"][0] if row["over"] == "task" else str(len(row["tasks"]))
    difference = row["difference"]
    told = NONE if difference is None else f"{difference:+.3f} {interval(row['interval'], 3)}".rstrip()
    keep = budgets.text(row["keep"])
    return method(row), keep, tasks, number(row["value"], 3), alone, number(row["expected"], 3), told, row["verdict"]


def _suites(document: Mapping[str, Any]) -> list[str]:
    """A block for each suite, way of scoring and model; one line where that is what the model's own block shows."""
    lines: list[str] = []
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in document.get("suites", []):
        groups.setdefault((row["model"], row["suite"], row["scored"]), []).append(row)
    for (model, word, scored), rows in groups.items():
        tasks = set[str]().union(*(row["tasks"] for row in rows))
        title = f"{model}, suite {word}, scored by {scored}: {len(tasks)} of {rows[0]['of']} tasks"
        if tasks == {cell["task"] for cell in document["cells"] if cell["model"] == model}:
            lines += ["", f"{title}, all that it ran"]
            continue
        body = {"": [_suite(row) for row in rows]}
        lines += block(title, ("method", "keep", "OP [95%]", "mean", "tasks"), body)
    return lines


def _suite(row: Mapping[str, Any]) -> tuple[str, ...]:
    tasks = f"{row['n']}{' own' if row['set'] == 'own' else ''}"
    op = f"{number(row['value'], 3)} {interval(row['interval'], 3)}".rstrip()
    return method(row), budgets.text(row["keep"]), op, number(row["mean"], 3), tasks
