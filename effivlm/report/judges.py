"""Who marked the answers of a task, and which differences between its cells are no larger than what that judge varies by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Cell = Mapping[str, Any]
DENSE = "dense"
EQUAL = 1e-9  # how far sums of the same numbers may lie apart


def within(
    judged: Mapping[str, Any] | None, score: float | None, other: Mapping[str, Any] | None, theirs: float | None
) -> float | None:
    """The judge's noise, where two scores lie no further apart than that; None where they lie further, or it is unknown.

    It is the larger of the two: how far apart the judge's scores of the same answers lie when it is asked again.
    """
    if not judged or not other or score is None or theirs is None or _named(judged) != _named(other):
        return None
    floors = [one["noise"]["spread"] for one in (judged, other) if one.get("noise")]
    noise = max(floors, default=0.0)
    return noise if noise > EQUAL and abs(score - theirs) <= noise + EQUAL else None


def _named(judged: Mapping[str, Any]) -> tuple[str, str]:
    return str(judged.get("judge", "")), str(judged.get("prompt_sha256", ""))


def remark(score: float, theirs: float, noise: float, scale: float) -> str:
    """In words, on the benchmark's scale."""
    return (
        f"judge: its difference to dense of {(score - theirs) * scale:+.2f} lies within the judge's noise of"
        f" {noise * scale:.2f}: it says nothing"
    )


def judges(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """A row for each judge and prompt on each task of each model.

    `noise` is the largest of its cells, `agreement` the least, `missing` and `marks` are sums over them. `within`: cells whose
    difference to dense lies within the noise; `pairs`: of how many pairs of cells it does.
    """
    found: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        if cell["judged"]:
            found.setdefault((cell["model"], cell["task"], *_named(cell["judged"])), []).append(cell)
    return [_row(own) for own in found.values()]


def _row(cells: Sequence[Cell]) -> dict[str, Any]:
    lead = cells[0]
    told = [cell["judged"] for cell in cells]
    alike = [one["agreement"] for one in told if one.get("agreement")]
    floors = [one["noise"] for one in told if one.get("noise")]
    return {
        "model": lead["model"],
        "task": lead["task"],
        **{word: lead["judged"].get(word, "") for word in ("judge", "rubric", "prompt_sha256")},
        "models": list(dict.fromkeys(name for one in told for name in one.get("models", ()))),
        "cells": len(cells),
        "scale": lead["scale"],
        "marks": sum(cell["n"] for cell in cells),
        "missing": sum(one.get("missing", 0) for one in told),
        "noise": _noise(floors) if floors else None,
        "agreement": _agreement(alike) if alike else None,
        "within": [_setting(*one) for one in close_to_dense(cells)],
        "pairs": _pairs(cells) if floors else None,
    }


def close_to_dense(cells: Sequence[Cell]) -> list[tuple[Cell, Cell]]:
    """Of cells of one task those whose difference to dense lies within the judge's noise, each with dense."""
    dense = next((cell for cell in cells if cell["method"] == DENSE), None)
    if dense is None:
        return []
    told = dense["judged"], dense["score"]
    others = (cell for cell in cells if cell is not dense)
    return [(cell, dense) for cell in others if within(cell["judged"], cell["score"], *told) is not None]


def _pairs(cells: Sequence[Cell]) -> dict[str, int]:
    """Of how many pairs of cells of one judge `within` holds, without asking it of every one."""
    known = [cell for cell in cells if cell["score"] is not None]
    scores = np.array([cell["score"] for cell in known], dtype=np.float64)
    floors = np.array([(cell["judged"].get("noise") or {}).get("spread", np.nan) for cell in known])
    first, second = np.triu_indices(len(known), 1)
    noise = np.fmax(floors[first], floors[second])
    close = (np.abs(scores[first] - scores[second]) <= noise + EQUAL) & (noise > EQUAL)
    return {"within": int(np.count_nonzero(close)), "of": len(first)}


def _setting(cell: Cell, dense: Cell) -> dict[str, Any]:
    return {**{word: cell[word] for word in ("method", "preset", "keep")}, "difference": cell["score"] - dense["score"]}


def _noise(floors: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The largest: of a cell whose noise is smaller, too much rather than too little is called noise."""
    return {
        "spread": max(one["spread"] for one in floors),
        "changed": max(one["changed"] for one in floors),
        "n": min(one["n"] for one in floors),
        "repeats": max(len(one["scores"]) for one in floors),
    }


def _agreement(alike: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    least = min(alike, key=lambda one: float(one["same"]))
    return {word: least[word] for word in ("judge", "same", "difference", "n")}
