"""Methods of the checkpoint, each at a budget of its own: what quality they keep, what they store, and what reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from effivlm.budget import TOKEN_KINDS
from effivlm.report.budgets import budget_of, rank
from effivlm.report.costs import SPEEDUPS
from effivlm.report.trust import doubts

JOIN = "+"
"""What stands between the methods of a composition, which has a table of its own."""
DEQUANTISED = "dequantised"
UNITS = {"bits": "bits a weight"}
ZEROS = "fraction of zeros"
"""What `counted` is in, by the kind of a budget."""
_CELL = ("metric", "scale", "n", "score", "interval", "ratio", "ratio_interval")
_OP = ("value", "interval", "mean", "n", "set", "undefined", "tasks")
_OL = ("value", "interval", "n", "set", "tasks")
Row = Mapping[str, Any]


def parameters(cells: Sequence[Row], summary: Mapping[str, Sequence[Row]]) -> list[dict[str, Any]]:
    """A row for each model and setting whose budget is one of weights: what all its cells tell together.

    No number is a mean over settings, so that budgets of different kinds meet in none.
    """
    found: dict[tuple[Any, ...], list[Row]] = {}
    for cell in cells:
        if JOIN not in cell["method"] and budget_of(cell["keep"]).kind not in TOKEN_KINDS:
            found.setdefault(_key(cell["model"], cell), []).append(cell)
    models = list(dict.fromkeys(model for model, *_ in found))
    ordered = sorted(found.items(), key=lambda one: (models.index(one[0][0]), rank(one[0][3]), *one[0][1:3]))
    return [_row(key, own, summary) for key, own in ordered]


def _key(model: str, row: Row) -> tuple[Any, ...]:
    return model, row["method"], row["preset"], row["keep"]


def _row(key: tuple[Any, ...], cells: Sequence[Row], summary: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    model, method, preset, keep = key
    kept = next((cell["achieved"] for cell in cells if cell["achieved"]), None) or {}
    product = next((cell["product"] for cell in cells if cell["product"]), None)
    loyal = [cell["loyalty"] for cell in cells if cell["loyalty"]]
    forced = [one["forced"] for one in loyal if one["forced"] is not None]
    kl = [one["kl"]["value"] for one in loyal if one["kl"]]
    kind = budget_of(keep).kind
    return {
        "model": model,
        "method": method,
        "preset": preset,
        "keep": keep,
        "op": _of(summary["op"], key, _OP),
        "ol": _of(summary["ol"], key, _OL),
        "forced": sum(forced) / len(forced) if forced else None,
        "kl": sum(kl) / len(kl) if kl else None,
        "oe": {word: _of(_oe(summary, word), key, _OL) for word in SPEEDUPS},
        "asked": kept.get("asked") or str(keep),
        "counted": kept.get("counted"),
        "unit": UNITS.get(kind, ZEROS),
        "product": product,
        "speed": _speed(kind, product),
        "by_task": {cell["task"]: _told(cell) for cell in cells},
    }


def _of(rows: Sequence[Row], key: tuple[Any, ...], words: Sequence[str]) -> dict[str, Any] | None:
    """The row of a setting on one model; that on the common tasks comes first."""
    own = (row for row in rows if len(row["models"]) == 1 and _key(row["models"][0], row) == key)
    row = next(own, None)
    return None if row is None else {word: row[word] for word in words}


def _oe(summary: Mapping[str, Sequence[Row]], word: str) -> list[Row]:
    return [row for row in summary["oe"] if row["of"] == word]


def _told(cell: Row) -> dict[str, Any]:
    loyal = cell["loyalty"] or {}
    found = {word: cell[word] for word in _CELL}
    found |= {"speedups": cell["speedups"], "untrusted": [word for word in SPEEDUPS if doubts(cell, word)]}
    found |= {"same": loyal.get("same"), "same_interval": loyal.get("interval"), "forced": loyal.get("forced")}
    return {**found, "kl": loyal.get("kl")}


def _speed(kind: str, product: Row | None) -> str:
    """Whether anything computes faster with these weights, in words: "" where that is not known."""
    if kind != "bits":
        return "no speed-up: zeros are stored, and multiplied, as any other number"
    if product is None:
        return ""
    kernels = [one for one in product["reading"].split(" and ") if one != DEQUANTISED]
    if not kernels:
        return "no speed-up: the weights are dequantised when they are loaded, and read as dense's are"
    part = " in part; the rest is dequantised" if DEQUANTISED in product["reading"] else ""
    return f"read packed by {' and '.join(kernels)}{part}"
