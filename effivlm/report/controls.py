"""Random rows: what a method has to beat at its budget before it has a claim."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

from effivlm.metrics.discoveries import RATE
from effivlm.records import Cell, Outcome

CONTROLS = {"visual tokens": "random_visual", "prompt entries": "random_kv"}
"""Which method draws at random, by what a budget is a share of."""
BEATS, BELOW, OPEN, FEW, NONE_RAN = "beats random", "below random", "open", "n too small", "no control ran"
"""What a comparison with a control comes to: the interval of the paired difference lies above 0, below it, or around it; one
that is no discovery among all comparisons of a report is open too."""
NUMBERS = ("difference", "interval", "better", "worse", "p", "mean_p", "q", "detectable")


def wanted(outcome: Outcome) -> str:
    """The method that controls this one; "" for dense, for a control itself, and for a composition, which has no one budget."""
    kept, method = outcome.achieved, outcome.cell.method
    if kept is None or kept.parts or outcome.cell == outcome.cell.dense or method in CONTROLS.values():
        return ""
    return CONTROLS.get(kept.of, "")


def control_of(cell: Cell, name: str, cells: Container[Cell]) -> Cell | None:
    """The control's cell at the same budget among `cells`: of the same preset if it has it, else as its own paper has it."""
    presets = (cell.preset, "paper")
    same = (Cell(cell.model, name, preset, cell.keep, cell.task) for preset in presets)
    return next((one for one in same if one in cells), None)


def judged(name: str, control: Cell | None, paired: Mapping[str, Any] | None) -> dict[str, Any]:
    """The comparison with the control called `name` as the document holds it; no numbers where it did not run."""
    facts = dict(paired) if paired else dict.fromkeys(NUMBERS)
    verdict = told(facts["interval"]) if control else NONE_RAN
    return {"method": name, "preset": control.preset if control else "", "n": 0, **facts, "verdict": verdict}


def told(interval: Sequence[float] | None, q: float | None = None) -> str:
    """The verdict on an interval of method - control; `q`: the rate at which it is a discovery, where that is asked."""
    if interval is None:
        return FEW
    if q is not None and q > RATE:
        return OPEN
    return BEATS if interval[0] > 0 else BELOW if interval[1] < 0 else OPEN
