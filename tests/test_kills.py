"""The record of random kills: rows are collected over runs, and the committed ones say that nothing was lost."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from toy_session import ROOT

BASELINE = ROOT / "reports" / "baselines" / "kills.jsonl"


@pytest.fixture(scope="module")
def kills() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "bench_tests" / "studies"))
        return importlib.import_module("kills")


def row(kind: str, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "kills": 3, "samples": 40, "asked_twice": 2, "in_work": 3, "identical": True, **more}


def test_rows_stand_behind_those_of_runs_before_and_the_table_counts_all(kills: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    for one in (row("worker"), row("node", identical=False), row("worker", kills=1)):
        kills.keep(path, one)
    assert [json.loads(line)["kills"] for line in path.read_text().splitlines()] == [3, 3, 1]
    table = path.with_suffix(".md").read_text()
    assert "| worker | 2 | 4 | 80 | 4 | 6 | 2 of 2 |" in table
    assert "| all | 3 | 7 | 120 | 6 | 9 | 2 of 3 |" in table


@pytest.mark.parametrize(("more", "wrong"), [({}, False), ({"asked_twice": 4}, True), ({"identical": False}, True)])
def test_a_run_that_lost_more_than_what_was_in_work_is_bad(
    kills: ModuleType, more: dict[str, Any], wrong: bool
) -> None:
    assert kills.bad(row("main", **more)) is wrong


def test_the_committed_kills_lost_nothing_and_their_table_is_of_them(kills: ModuleType) -> None:
    rows = [json.loads(line) for line in BASELINE.read_text().splitlines()]
    assert {one["kind"] for one in rows} == set(kills.KINDS)
    assert [one for one in rows if kills.bad(one)] == []
    assert BASELINE.with_suffix(".md").read_text() == kills.table(rows)
