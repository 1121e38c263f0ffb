"""Families of comparisons: all that a report makes with one thing are judged together, so that many do not make false ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from effivlm.metrics.discoveries import RATE, adjusted
from effivlm.report.controls import FEW, NONE_RAN, told

RULE = "Benjamini-Hochberg"


def settle(cells: Iterable[Mapping[str, Any]], rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Give every comparison of a document its `q`, and those with a random row the verdict that holds beside the others.

    The families are the cells against dense, the cells against their random rows, and the OP rows against theirs. Returns the
    rule, its rate, and how many comparisons each family has.
    """
    held = list(cells)
    families = {
        "dense": [cell["paired"] for cell in held if cell["paired"]],
        "random": _controlled(held),
        "random_op": _controlled(rows),
    }
    for name, family in families.items():
        for one, q in zip(family, adjusted([one["mean_p"] for one in family]), strict=True):
            one["q"] = q
            if name != "dense" and one["verdict"] not in (FEW, NONE_RAN):
                one["verdict"] = told(one["interval"], q) if one["interval"] else one["verdict"]
    counts = {name: sum(one["q"] is not None for one in family) for name, family in families.items()}
    return {"rule": RULE, "rate": RATE, "families": counts}


def _controlled(rows: Iterable[Mapping[str, Any]]) -> Sequence[dict[str, Any]]:
    return [row["control"] for row in rows if row["control"] and row["control"]["verdict"] != NONE_RAN]
