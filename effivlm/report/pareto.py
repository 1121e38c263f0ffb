"""Quality against what it costs: the points of the Pareto chart, and which of them no other setting beats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from effivlm.metrics import summary
from effivlm.report import budgets
from effivlm.report.cells import Row
from effivlm.report.costs import SPEEDUPS
from effivlm.report.trust import doubts

DIGITS = 9  # of a quality: what differs beyond them was rounded differently on the way
SMALLER_IS_BETTER = {"keep": True, "kv": True, **dict.fromkeys(SPEEDUPS, False)}


def pareto(op: Sequence[dict[str, Any]], rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One point for each OP row that can be compared, with its costs over the same (model, task) pairs.

    `costs`: keep (what was asked for: a fraction, a number of tokens, or bits of a weight), kv (cache bytes / dense cache bytes)
    and the geometric means of all speed-ups,
    None where any pair lacks it or is
    untrusted, or the pairs were timed on several engines. `front` names the costs at which no setting
    of the same model has both better quality and better cost; shares of one thing (`budget_of`) are no budgets of another, so
    over keep only settings with the same are compared.
    """
    cells = {_key(row.data, row.data["model"], row.data["task"]): row for row in rows}
    with_common = {row["models"][0] for row in op if row["set"] == "common"}
    points = []
    for row in op:
        if row["set"] == "common" or row["models"][0] not in with_common:
            members = [cells[_key(row, model, task)] for model in row["models"] for task in row["tasks"]]
            kept = {one["of"] for member in members if (one := member.data["achieved"])}
            kind = budgets.section(row["keep"], kept.pop()) if len(kept) == 1 else ""
            facts = {name: value for name, value in row.items() if name not in ("control", "detectable")}
            points.append(
                {**facts, "budget_of": kind, "costs": _costs(budgets.size(row["keep"]), members), "front": []}
            )
    for model in dict.fromkeys(point["models"][0] for point in points):
        for cost in SMALLER_IS_BETTER:
            known = [point for point in points if point["models"][0] == model and point["costs"][cost] is not None]
            for of in dict.fromkeys(point["budget_of"] for point in known) if cost == "keep" else (None,):
                _mark([point for point in known if of in (None, point["budget_of"])], cost)
    return points


def _key(setting: dict[str, Any], model: str, task: str) -> tuple[Any, ...]:
    return (setting["method"], setting["preset"], setting["keep"], model, task)


def _costs(keep: float, members: Sequence[Row]) -> dict[str, float | None]:
    kept = [row.data["achieved"] for row in members]
    achieved = [one for one in kept if one and one["kv_bytes_dense"]]
    dense = sum(one["kv_bytes_dense"] for one in achieved)
    complete = dense and len(achieved) == len(members)
    found: dict[str, float | None] = {
        "keep": keep,
        "kv": sum(one["kv_bytes"] for one in achieved) / dense if complete else None,
    }
    for word in SPEEDUPS:
        average = summary.efficiency(
            None if doubts(row.data, word) else (row.data["speedups"][word] or {}).get("value") for row in members
        )
        alike = len({row.origins.get(word) for row in members}) == 1
        found[word] = average.value if alike and not average.missing else None
    return found


def _mark(points: list[dict[str, Any]], cost: str) -> None:
    """Walk from the cheapest on: a point is on the front if its quality exceeds that of every cheaper one."""
    sign = 1 if SMALLER_IS_BETTER[cost] else -1
    best = float("-inf")
    ordered = [(sign * point["costs"][cost], -round(point["value"], DIGITS), at) for at, point in enumerate(points)]
    for _, quality, at in sorted(ordered):
        if -quality > best:
            points[at]["front"].append(cost)
            best = -quality
