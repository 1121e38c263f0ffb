"""Times and bytes of a cell, and its speed-ups against the fastest dense run of the same engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from effivlm.metrics.statistics import ends, median_interval
from effivlm.records import Cost, Outcome
from effivlm.report.trust import Trust, trust

SPEEDUPS = {"ttft": "ttft_s", "decode": "decode_ms_per_token", "batch": "batch_decode_ms_per_step"}
"""What a speed-up is the ratio of; "batch" is decoding of many prompts at once."""
FLOORS = {"ttft": "ttft_floor_s", "decode": "decode_floor_ms_per_token", "batch": "batch_decode_floor_ms_per_step"}
"""What the device cannot beat of the same."""
BESIDE = (
    *("prompt_tokens", "image_s", "tower_s", "method_s", "prefill_s", "first_s"),
    *("batch", "batch_tokens_per_s", "largest_batch", "ttft_energy_j", "decode_energy_j_per_token"),
)
"""What else a timing may know of itself."""
Under = tuple[str, str, int]
"""A cost's name, the engine (with its batch) and how long the prompt was: only what agrees in all three is compared."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A dense measurement, and whether it can be trusted."""

    cost: Cost
    trust: Trust

    @property
    def rank(self) -> tuple[bool, float]:
        return bool(self.trust.untrusted), self.cost.median


Dense = Mapping[Under, Reference]


def dense_costs(outcomes: Iterable[Outcome]) -> Dense:
    """The fastest dense measurement of each sort: never a slowed one where a faster stands beside it, and an untrusted one
    only where there is no other."""
    fastest: dict[Under, Reference] = {}
    for outcome in outcomes:
        for name, cost in _measured(outcome).items():
            under = _under(outcome, name)
            found = Reference(cost, trust(outcome.remarks, _word(name)))
            if under not in fastest or found.rank < fastest[under].rank:
                fastest[under] = found
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
            _, engine, tokens = under = _under(outcome, name)
            if under in dense:
                found[word] = _speedup(measured[name], dense[under].cost)
            elif any(known == name for known, *_ in dense):
                length = f" at {tokens:,} prompt tokens" if tokens else ""
                remarks.append(f"no dense {name} on engine {engine or 'unnamed'}{length}, so no {word} speed-up")
    return found, remarks


def dense_medians(outcomes: Iterable[Outcome], dense: Dense) -> dict[str, float]:
    """Dense's medians by name, of the same engine and prompt as those of a cell."""
    under: dict[str, Under] = {}
    for outcome in outcomes:
        whole = ("prefill_s",) if SPEEDUPS["ttft"] in outcome.costs else ()
        under |= {name: _under(outcome, name) for name in (*_measured(outcome), *whole)}
    return {name: dense[key].cost.median for name, key in under.items() if key in dense}


def trusts(outcomes: Iterable[Outcome], dense: Dense) -> dict[str, dict[str, list[str]]]:
    """What is to be said against the timings that a cell has, by their word: `untrusted` and `unsettled` hold reasons of its own,
    `against` those of the dense timing that its speed-up is taken from."""
    found = {}
    for outcome in outcomes:
        for word in (word for word, name in SPEEDUPS.items() if name in _measured(outcome)):
            own, reference = trust(outcome.remarks, word), dense.get(_under(outcome, SPEEDUPS[word]))
            against = [f"dense: {reason}" for reason in reference.trust.untrusted] if reference else []
            found[word] = {"untrusted": list(own.untrusted), "unsettled": list(own.unsettled), "against": against}
    return found


def engines(outcomes: Iterable[Outcome]) -> dict[str, str]:
    """The engine by the name of the speed-up it gives, as `speedups` takes them."""
    return {
        word: _engine(outcome, name)
        for outcome in outcomes
        for word, name in SPEEDUPS.items()
        if name in _measured(outcome)
    }


def _word(name: str) -> str:
    return next((word for word, cost in SPEEDUPS.items() if cost == name), "")


def _engine(outcome: Outcome, name: str) -> str:
    batch = outcome.costs.get("batch")
    return f"{outcome.engine}, batch {batch.median:.0f}" if batch and name == SPEEDUPS["batch"] else outcome.engine


def _under(outcome: Outcome, name: str) -> Under:
    tokens = outcome.costs.get("prompt_tokens")
    return name, _engine(outcome, name), round(tokens.median) if tokens else 0


def _measured(outcome: Outcome) -> dict[str, Cost]:
    return {name: cost for name, cost in outcome.costs.items() if cost.rounds}


def _speedup(own: Cost, dense: Cost) -> dict[str, Any] | None:
    if own.median <= 0:
        return None
    mine, theirs = median_interval(own.rounds), median_interval(dense.rounds)
    bounds = [theirs[0] / mine[1], theirs[1] / mine[0]] if mine and theirs and mine[0] > 0 else None
    return {"value": dense.median / own.median, "interval": bounds}
