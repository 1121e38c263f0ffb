"""What the cases are made of: a stand to time a cell on, pytest-benchmark's clock, and what is known of a case when it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pytest

from effivlm.plugin.summary import WITHOUT_TABLE
from effivlm.records import Cell, Outcome
from effivlm.session.groups import Groups

QUIET = pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning:numpy")
"""transformers' processor of InternVL hands torch's numbers to NumPy, which complains at every picture."""
UNIT = {"ttft": ("ttft_s", 1.0), "decode": ("decode_ms_per_token", 1e-3)}


class Clock:
    """pytest-benchmark's timer for our rows: it moves by what was measured, so both tables show the same numbers."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        return self.seconds

    def ticking(self, rounds: Iterable[float]) -> Callable[[], None]:
        """A function that takes as long, by this clock, as the rounds on record did: the next one at every call."""
        waiting = iter(rounds)

        def tick() -> None:
            self.seconds += next(waiting)

        return tick


CLOCK = Clock()


@dataclass
class Stand:
    """Measures one part of a cell as one row of pytest-benchmark, and as an outcome of the run in any case."""

    cell: Cell
    groups: Groups
    open_model: Callable[[], Any]
    request: pytest.FixtureRequest

    def measure(self, part: str, benchmark: Any) -> Outcome:
        if other := self.groups.elsewhere(self.cell):
            pytest.skip(f"timed by shard {other}")
        benchmark.group = f"{part} {' '.join(self.cell.group)}"
        remarks = [*self.request.getfixturevalue("vlm_timing_remarks")]
        if not benchmark.enabled:
            remarks.append(f"{WITHOUT_TABLE}: it is disabled in this session")
        if (self.cell, part) in self.groups.done:
            benchmark.extra_info["measured"] = "in the run that was resumed"
        outcome = measured(self.groups.timing(self.cell, part, self.open_model, remarks))
        known = figures(self.groups, outcome)
        self.request.node.user_properties.extend(known.items())
        benchmark.extra_info.update(known)
        unit, seconds = UNIT[part]
        rounds = outcome.costs[unit].rounds
        benchmark.pedantic(CLOCK.ticking(seconds * value for value in rounds), rounds=len(rounds))
        return outcome


def figures(groups: Groups, outcome: Outcome) -> dict[str, float]:
    """What is known of a case when it ends, for JUnit's properties and pytest-benchmark's extra_info.

    Under the names of the exported tables: score on [0, 1], score / dense score as the report has it, and the fraction that was
    kept. What is unknown is absent.
    """
    from effivlm.report.quality import compare

    cell = outcome.cell
    own, dense = groups.done.get((cell, "quality")), groups.done.get((cell.dense, "quality"))
    kept = next((one.achieved for one in (own, outcome) if one and one.achieved), None)
    found = {"kept_fraction": kept.keep if kept else None, "score_fraction": own.score if own else None}
    if own and dense and own.status == dense.status == "ok":
        found["op_ratio"] = compare([dense] if own is dense else [dense, own], dense)[-1].ratio
    return {name: value for name, value in found.items() if value is not None}


def measured(outcome: Outcome) -> Outcome:
    """The outcome of a measured cell: skips with the reason if it is unsupported, fails with it if the run failed."""
    if outcome.status == "unsupported":
        pytest.skip(outcome.reason)
    if outcome.status != "ok":
        pytest.fail(outcome.reason or outcome.status, pytrace=False)
    return outcome


class NoBenchmark:
    """Stands in for pytest-benchmark's fixture where that plugin is switched off."""

    enabled = False
    group = ""

    def __init__(self) -> None:
        self.extra_info: dict[str, Any] = {}

    def pedantic(self, target: Callable[[], None], **_: Any) -> None:
        target()
