"""Does the gate catch it? `python bench_tests/studies/gate_demo.py reports/RUN` plants six faults in copies of a run and shows.

The run needs quality and decode timings of dense and of one method at least; it is only read. Exit code 1 if a fault
was not caught, or if the untouched copy did not pass.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from effivlm.records import Cost, Outcome, dump
from effivlm.report.baseline import load
from effivlm.report.differences import headline
from effivlm.report.document import read
from effivlm.report.limits import Limits
from effivlm.report.verdict import verdict

DECODE = "decode_ms_per_token"
SCATTER = 0.04  # range over median above which the gate rightly cannot tell a tenth from noise
Verdict = dict[str, Any]


@dataclass(frozen=True)
class Copy:
    """A run as it is written to a folder of its own."""

    header: dict[str, Any]
    outcomes: tuple[Outcome, ...]

    def store(self, folder: Path) -> Path:
        folder.mkdir()
        lines = [{**self.header, "kind": "run"}, *(one.to_json() for one in self.outcomes), END]
        (folder / "outcomes.jsonl").write_text("".join(dump(line) + "\n" for line in lines), encoding="utf-8")
        return folder

    def having(self, old: Outcome, new: Outcome) -> Copy:
        return replace(self, outcomes=tuple(new if one is old else one for one in self.outcomes))

    def without(self, cell_id: str) -> Copy:
        return replace(self, outcomes=tuple(one for one in self.outcomes if one.cell.id != cell_id))


END = {"kind": "end", "status": "finished"}


@dataclass(frozen=True)
class Fault:
    """What is planted in a pair of copies, and how one sees in a verdict that it was caught."""

    name: str
    before: Copy
    after: Copy
    caught: Callable[[Verdict], bool]


def faults(run: Copy) -> list[Fault]:
    """The six faults, and in front the run against itself. Raises ValueError where the run lacks what a fault needs."""
    quality = [one for one in run.outcomes if one.part == "quality" and one.status == "ok"]
    compressed = [one for one in quality if one.cell.method != "dense" and one.achieved and one.achieved.keep < 0.9]
    timed = [
        one for one in run.outcomes if one.part == "decode" and one.status == "ok" and len(one.costs[DECODE].rounds) > 1
    ]
    scored = [one for one in compressed if one.n > 1 and one.score]
    for what, found in (("compressed cell with a score", scored), ("decode timing", timed)):
        if not found:
            raise ValueError(f"the run holds no {what}, so not every fault can be planted: run the suite without -k")
    best = max(scored, key=lambda one: one.score or 0.0)
    quiet = min(timed, key=spread)
    dense = next((one for one in quality if one.cell == best.cell.dense), best)
    other = {"device": "another device", "processor": "another device", "driver": "0.0", "gpus": []}
    elsewhere = replace(run, header={**run.header, **other})
    calm, named = steadied(quiet)
    calmed = run.having(quiet, calm)
    slower = replace(calm, costs={**calm.costs, DECODE: Cost(tuple(1.10 * ms for ms in calm.costs[DECODE].rounds))})
    return [
        Fault("nothing", run, run, lambda found: found["status"] == "passed"),
        Fault("a method silently runs dense", run, run.having(best, as_dense(best, dense)), fails(best, "kept")),
        Fault("2 points of score lost", run, run.having(best, poorer(best, 0.02)), fails(best, "score")),
        Fault(f"a decode 10 % slower{named}", calmed, calmed.having(calm, slower), fails(quiet, "decode")),
        Fault("a case vanished", run, run.without(best.cell.id), fails(best, "missing")),
        Fault("a new case", run.without(best.cell.id), run, says("new", "warn", best.cell.id)),
        Fault("another device", run, elsewhere, without_timings),
    ]


def spread(outcome: Outcome) -> float:
    """Range of the rounds over their median: in a noisy timing a tenth does not show, and should not."""
    cost = outcome.costs[DECODE]
    return (max(cost.rounds) - min(cost.rounds)) / cost.median


def steadied(outcome: Outcome) -> tuple[Outcome, str]:
    """The outcome with its rounds drawn together to 1 % around their median where they scatter so widely that a tenth is
    within the noise (a shared processor), and words that say so."""
    cost = outcome.costs[DECODE]
    if spread(outcome) <= SCATTER:
        return outcome, ""
    widest = max(abs(ms - cost.median) for ms in cost.rounds)
    rounds = tuple(cost.median * (1 + 0.01 * (ms - cost.median) / widest) for ms in cost.rounds)
    words = f" (rounds steadied: the run's own scatter over {100 * spread(outcome):.0f} %)"
    return replace(outcome, costs={**outcome.costs, DECODE: Cost(rounds)}), words


def as_dense(outcome: Outcome, dense: Outcome) -> Outcome:
    """The outcome of a method that answers as dense does, keeps what dense keeps, and is asked for less."""
    achieved = outcome.achieved
    assert achieved is not None, "only cells that kept something are chosen"
    all_kept = replace(achieved, kept=achieved.total, keep=1.0, kv_bytes=achieved.kv_bytes_dense)
    return replace(outcome, answers=dense.answers, score=dense.score, n=dense.n, achieved=all_kept)


def poorer(outcome: Outcome, drop: float) -> Outcome:
    """The outcome with its mean score lower by `drop`, taken from every answer in proportion to its own score."""
    assert outcome.score, "only cells that scored are chosen"
    factor = max(0.0, 1 - drop / outcome.score)
    answers = tuple(replace(one, score=None if one.score is None else one.score * factor) for one in outcome.answers)
    return replace(outcome, answers=answers, score=outcome.score * factor)


def says(check: str, status: str, cell: str) -> Callable[[Verdict], bool]:
    return lambda found: any(
        (row["check"], row["status"], row["cell"]) == (check, status, cell) for row in found["rows"]
    )


def fails(outcome: Outcome, check: str) -> Callable[[Verdict], bool]:
    seen = says(check, "fail", outcome.cell.id)
    return lambda found: found["status"] == "failed" and seen(found)


def without_timings(found: Verdict) -> bool:
    """The device is reported, scores were compared and no timing was."""
    checks = {row["check"] for row in found["rows"]}
    return says("device", "warn", "")(found) and "score" in checks and not {"ttft", "decode", "memory"} & checks


def show(found: Sequence[tuple[Fault, Verdict]]) -> str:
    """A table of what was planted, what the gate said, and whether that is the right thing."""
    wide = max(len(fault.name) for fault, _ in found)
    lines = []
    for fault, said in found:
        first = next((row for row in said["rows"] if row["status"] != "ok"), None)
        reason = f"{first['check']}: {first['cell']} {first['text']}" if first else headline(said)
        lines.append(f"{fault.name:{wide}}  {'yes' if fault.caught(said) else 'NO ':3}  {said['status']:7}  {reason}")
    return "\n".join([f"{'planted':{wide}}  ok?  gate     first finding", *lines])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    folder = parser.parse_args(arguments).run
    try:
        header, outcomes, _ = read(folder / "outcomes.jsonl")
        latest = {(one.cell, one.part): one for one in outcomes}
        planted = faults(Copy(header, tuple(latest.values())))
    except (OSError, ValueError) as error:
        print(f"gate_demo: {error}", file=sys.stderr)
        return 2
    found = []
    with tempfile.TemporaryDirectory() as place:
        for number, fault in enumerate(planted):
            before = load(fault.before.store(Path(place) / f"{number}-before"))
            after = load(fault.after.store(Path(place) / f"{number}-after"))
            found.append((fault, verdict(before, after, Limits())))
    print(show(found))
    return 0 if all(fault.caught(said) for fault, said in found) else 1


if __name__ == "__main__":
    sys.exit(main())
