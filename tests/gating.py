"""Pairs of runs for tests of the gate, and the verdict on them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonschema import validate

from effivlm.records import Outcome
from effivlm.report.baseline import Side, of_run
from effivlm.report.document import build
from effivlm.report.limits import Limits
from effivlm.report.verdict import verdict
from tests.outcomes import END, HEADER, cell

FASTV, DENSE = cell("fastv", "0.10"), cell()
PARTS = ("ttft", "decode")
SCHEMA = Path(__file__).parent.parent / "effivlm" / "report" / "schema"


def side(outcomes: Sequence[Outcome], name: str = "run", **facts: Any) -> Side:
    outcomes = list(outcomes)
    return of_run(build({**HEADER, **facts}, outcomes, END), outcomes, name)


def judged(before: Side, after: Side, **limits: Any) -> dict[str, Any]:
    found = verdict(before, after, Limits(**limits))
    validate(found, json.loads((SCHEMA / "verdict.schema.json").read_text()))
    return found


def rows(found: dict[str, Any], status: str) -> list[tuple[str, str]]:
    return [(row["cell"], row["check"]) for row in found["rows"] if row["status"] == status]


def right(count: int, n: int = 200) -> list[float]:
    return [1.0] * count + [0.0] * (n - count)
