"""Times and bytes of a cell, and its speed-ups against the fastest dense run of the same engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from effivlm.metrics.statistics import ends, median_interval
from effivlm.records import Cost, Outcome

SPEEDUPS = {"ttft": "ttft_s", "decode": "decode_ms_per_token"}
Dense = Mapping[tuple[str, str], Cost]


def dense_costs(outcomes: Iterable[Outcome]) -> Dense:
    """The fastest dense measurement by (cost name, engine): never a slowed one where a faster stands beside it."""
    fastest: dict[tuple[str, str], Cost] = {}
    for outcome in outcomes:
        for name, cost in _measured(outcome).items():
            known = fastest.get((name, outcome.engine))
            if known is None or cost.median < known.median:
                fastest[name, outcome.engine] = cost
    return fastest


def describe_costs(outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """Costs of all parts of one cell by name: rounds in the unit of the name, their median and its interval."""
    return {
        name: {
            "rounds": list(cost.rounds),
            "median": cost.median,
            "interval": ends(median_interval(cost.rounds)),
            "n": len(cost.rounds),
        }
        for outcome in outcomes
        for name, cost in _measured(outcome).items()
    }


def speedups(outcomes: Iterable[Outcome], dense: Dense) -> tuple[dict[str, Any], list[str]]:
    """Dense time / own time by name, None where either is missing; and remarks on what could not be compared.

    The interval divides the ends of the two medians' intervals: wider than the joint one, never narrower.
    """
    found: dict[str, Any] = dict.fromkeys(SPEEDUPS)
    remarks = []
    for outcome in outcomes:
        measured = _measured(outcome)
        for word, name in SPEEDUPS.items():
            if name not in measured:
                continue
            reference = dense.get((name, outcome.engine))
            if reference is not None:
                found[word] = _speedup(measured[name], reference)
            elif any(known == name for known, _ in dense):
                remarks.append(f"no dense {name} on engine {outcome.engine or 'unnamed'}, so no {word} speed-up")
    return found, remarks


def engines(outcomes: Iterable[Outcome]) -> dict[str, str]:
    """The engine by the name of the speed-up it gives, as `speedups` takes them."""
    return {
        word: outcome.engine for outcome in outcomes for word, name in SPEEDUPS.items() if name in _measured(outcome)
    }


def _measured(outcome: Outcome) -> dict[str, Cost]:
    return {name: cost for name, cost in outcome.costs.items() if cost.rounds}


def _speedup(own: Cost, dense: Cost) -> dict[str, Any] | None:
    if own.median <= 0:
        return None
    mine, theirs = median_interval(own.rounds), median_interval(dense.rounds)
    bounds = [theirs[0] / mine[1], theirs[1] / mine[0]] if mine and theirs and mine[0] > 0 else None
    return {"value": dense.median / own.median, "interval": bounds}
