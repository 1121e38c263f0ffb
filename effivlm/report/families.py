"""Families of comparisons: all that a report makes with one thing are judged together, so that many do not make false ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from effivlm.metrics.discoveries import RATE, adjusted
from effivlm.report.additive import verdict
from effivlm.report.controls import NONE_RAN, told

RULE = "Benjamini-Hochberg"
VERDICTS = {"together": verdict, "together_op": verdict}
"""What makes the verdict of families that are not about a random row."""


def settle(
    cells: Iterable[Mapping[str, Any]],
    rows: Iterable[Mapping[str, Any]],
    compositions: Iterable[dict[str, Any]] = (),
) -> dict[str, Any]:
    """Give every comparison of a document its `q`, and those with more than dense the verdict that holds beside the others.

    The families are the cells against dense, the cells against their random rows, and the OP rows against theirs; and
    compositions against their methods together, on tasks and over them. Returns the rule, its rate, and how many comparisons each
    family has.
    """
    held, composed = list(cells), list(compositions)
    families: dict[str, Sequence[dict[str, Any]]] = {
        "dense": [cell["paired"] for cell in held if cell["paired"]],
        "random": _controlled(held),
        "random_op": _controlled(rows),
    }
    if composed:
        for over, name in (("task", "together"), ("tasks", "together_op")):
            families[name] = [one for one in composed if one["over"] == over]
    for name, family in families.items():
        for one, q in zip(family, adjusted([one["mean_p"] for one in family]), strict=True):
            one["q"] = q
            if name != "dense" and one["interval"]:
                one["verdict"] = VERDICTS.get(name, told)(one["interval"], q)
    counts = {name: sum(one["q"] is not None for one in family) for name, family in families.items()}
    return {"rule": RULE, "rate": RATE, "families": counts}


def _controlled(rows: Iterable[Mapping[str, Any]]) -> Sequence[dict[str, Any]]:
    return [row["control"] for row in rows if row["control"] and row["control"]["verdict"] != NONE_RAN]
