"""Blocks of the terminal for what not every run has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from effivlm.report.texts import NONE, block, interval, method, number

MIB = 1 << 20


def further(document: Mapping[str, Any]) -> list[str]:
    """Methods of the checkpoint; nothing where a run has none."""
    return [*_parameters(document)]


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
