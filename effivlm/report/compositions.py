"""Compositions beside their methods alone: on each task, and over the tasks on which all of them ran."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from effivlm.metrics import summary
from effivlm.metrics.discoveries import detectable, difference_p, effective, spreads
from effivlm.metrics.statistics import NO_WIDTH, Floats, ends, has_no_width, interval
from effivlm.records import Cell
from effivlm.report.additive import NUMBERS, OPEN, methods_alone, verdict
from effivlm.report.budgets import budget_of, rank
from effivlm.report.cells import Row

_CELL = ("model", "method", "preset", "keep", "task")
Known = Mapping[Cell, Row]


def compositions(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A row for each composition on each task ("task"), and for each that has two tasks or more one over them ("tasks").

    `value` is its OP ratio, or OP, `parts` are those of its methods alone at the budgets that they have in it, `expected` is
    their product. `difference` is what it has beyond its methods' losses together: in the task's score, or over
    tasks as a share of dense's.
    """
    models = {row.data["model"] for row in rows if row.beyond is not None}
    known = {_cell(row): row for row in rows if row.data["model"] in models}
    of_tasks: dict[tuple[str, ...], list[Cell]] = {}
    found = []
    for cell, row in known.items():
        if row.beyond is not None:
            of_tasks.setdefault((cell.model, cell.method, cell.preset, cell.keep), []).append(cell)
            found.append(_on_task(cell, row, known))
    over = [one for cells in of_tasks.values() if (one := _over_tasks(cells, known))]
    return sorted([*over, *found], key=_place)


def _cell(row: Row) -> Cell:
    keep = budget_of(row.data["keep"]).label
    return Cell(**{**{word: row.data[word] for word in _CELL}, "keep": keep})


def _place(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["model"], row["over"] == "task", row["tasks"], row["method"], rank(row["keep"])


def _on_task(cell: Cell, row: Row, known: Known) -> dict[str, Any]:
    parts = methods_alone(cell)
    ratios = [known[part].data["ratio"] if part in known else None for part in parts]
    facts = {
        "value": row.data["ratio"],
        "value_interval": row.data["ratio_interval"],
        "scale": row.data["scale"],
        "tasks": [cell.task],
    }
    return {**_named(cell, "task"), **facts, **_parts(parts, ratios), **(row.beyond or {})}


def _over_tasks(cells: Sequence[Cell], known: Known) -> dict[str, Any] | None:
    """One composition over tasks on which all of its methods ran; None for fewer than two, and where scores of one method come
    about in different ways."""
    whole = [cell for cell in cells if all(_has_ratio(one, known) for one in (cell, *methods_alone(cell)))]
    if len(whole) < 2:
        return None
    own, *parts = (
        [known[one] for one in those] for those in zip(*((cell, *methods_alone(cell)) for cell in whole), strict=True)
    )
    if any(len({row.origins["quality"] for row in those}) > 1 for those in (own, *parts)):
        return None
    value, *others = (summary.overall_performance(row.data["ratio"] for row in those).value for those in (own, *parts))
    draws = _draws([own, *parts])
    facts = {
        "value": value,
        "value_interval": None if draws is None else _wide(np.sqrt((draws[0] ** 2).mean(axis=0))),
        "scale": 1.0,
        "tasks": [cell.task for cell in whole],
    }
    points = np.array([[row.data["ratio"] for row in those] for those in (own, *parts)])
    beyond = _beyond(float(_apart(points)), draws, own)
    return {**_named(cells[0], "tasks"), **facts, **_parts(methods_alone(cells[0]), others), **beyond}


def _has_ratio(cell: Cell, known: Known) -> bool:
    return cell in known and known[cell].data["ratio"] is not None


def _draws(lists: Sequence[Sequence[Row]]) -> Floats | None:
    """Ratios by method, task and resample; None where any has none."""
    draws = [[row.ratio_draws for row in those if row.ratio_draws is not None] for those in lists]
    return np.array(draws) if all(len(one) == len(those) for one, those in zip(draws, lists, strict=True)) else None


def _by_task(ratios: Floats) -> Floats:
    """The composition's ratios [0] beyond those of its methods together [1:], by task."""
    found: Floats = ratios[0] - ratios[1:].sum(axis=0) + len(ratios) - 2
    return found


def _apart(ratios: Floats) -> Floats:
    """The same averaged over tasks."""
    found: Floats = np.asarray(_by_task(ratios).mean(axis=0))
    return np.where(np.abs(found) < NO_WIDTH, 0.0, found)  # what sums of fractions leave is no difference


def _beyond(difference: float, ratios: Floats | None, own: Sequence[Row]) -> dict[str, Any]:
    """As `additive.beyond` tells it of one task; `ratios` by method, task, resample. Samples are not counted over tasks."""
    draws = None if ratios is None else _apart(ratios)
    bounds = None if draws is None else interval(draws)
    alike = bounds is not None and has_no_width(bounds)
    spread = None if draws is None or alike else spreads(draws[:, None])[0]
    apart = [0.0] * len(own) if ratios is None else [(one or 0.0) ** 2 for one in spreads(_by_task(ratios).T)]
    units = effective(apart, [row.data["units"] for row in own])
    return {
        **dict.fromkeys(NUMBERS),
        "difference": difference,
        "interval": None if bounds is None or alike else ends(bounds),
        "mean_p": difference_p(difference, spread, units, sum(map(_unlike, own))),
        "detectable": detectable(spread, units),
        "n": len(own),
        "verdict": OPEN if alike else verdict(bounds),
    }


def _unlike(row: Row) -> int:
    """How many groups of samples tell a composition from its methods together."""
    told = row.beyond or {}
    return (told.get("better") or 0) + (told.get("worse") or 0)


def _wide(draws: Floats) -> list[float] | None:
    """None where all resamples tell the same."""
    bounds = interval(draws)
    return None if bounds is None or has_no_width(bounds) else ends(bounds)


def _named(cell: Cell, over: str) -> dict[str, Any]:
    keep = budget_of(cell.keep).stored
    return {"model": cell.model, "method": cell.method, "preset": cell.preset, "keep": keep, "over": over}


def _parts(cells: Sequence[Cell], values: Sequence[float | None]) -> dict[str, Any]:
    """The methods alone with their ratios, and what these come to one after another."""
    parts = [
        {"method": one.method, "preset": one.preset, "keep": budget_of(one.keep).stored, "value": value}
        for one, value in zip(cells, values, strict=True)
    ]
    there = [value for value in values if value is not None]
    return {"parts": parts, "expected": math.prod(there) if len(there) == len(values) else None}
