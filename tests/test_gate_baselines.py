"""Baselines and tables of tolerances: what is read back, what stays small, and what is refused by name."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from jsonschema import validate

from effivlm.report.baseline import load, write_baseline
from effivlm.report.limits import Limits, Tolerance, tolerances
from tests.gating import DENSE, PARTS, SCHEMA, judged, side
from tests.outcomes import cell, quality, small_run, store, timed


@pytest.mark.parametrize("score", ["NaN", "Infinity", "1e999", '"0.5"', "true", "2", "-0.1"])
def test_a_baseline_with_a_score_that_could_hide_a_drop_is_refused(tmp_path: Path, score: str) -> None:
    path = tmp_path / "base.json"
    write_baseline(path, side([quality(DENSE, [0.625, 1, 1, 0])]))
    text = path.read_text()
    assert text.count("0.625") == 1
    path.write_text(text.replace("0.625", score))
    with pytest.raises(ValueError, match=r"is not JSON|is damaged"):
        load(path)


def test_the_most_special_tolerance_counts_and_the_last_of_equals() -> None:
    limits = Limits(tolerances("docvqa_micro.score=0.05, fastv.score=0.04, score=0.02, score=0.03"))
    assert limits.allowed("score", {"task": "docvqa_micro", "method": "fastv", "model": "a"}) == 0.04
    assert limits.allowed("score", {"task": "chartqa_micro", "method": "snapkv", "model": "a"}) == 0.03
    assert tolerances("Qwen2.5-VL.decode=1.2") == (Tolerance("decode", 1.2, "Qwen2.5-VL"),)
    assert tolerances("") == ()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("score", "is not GROUP=VALUE"),
        ("score=0.1,", "is not GROUP=VALUE"),
        (".score=0.1", "is not GROUP=VALUE"),
        ("speed=1.1", "'speed' is not one of score, kept, ttft, decode, batch, memory"),
        ("score=high", "'high' is not a number"),
        ("score=2", "is not in \\[0, 1\\]"),
        ("decode=0.9", "ratio of at least 1"),
        ("decode=nan", "ratio of at least 1"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused_by_name(table: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tolerances(table)


def test_a_baseline_reads_back_as_the_run_it_was_made_of(tmp_path: Path) -> None:
    run = side(small_run()[:-1])
    write_baseline(tmp_path / "new" / "base.json", run)
    stored = json.loads((tmp_path / "new" / "base.json").read_text())
    validate(stored, json.loads((SCHEMA / "baseline.schema.json").read_text()))
    again = load(tmp_path / "new" / "base.json")
    assert (again.cells, again.unmeasured) == (run.cells, run.unmeasured)
    found = judged(again, run)
    assert (found["status"], found["counts"]["warn"], found["compared"]) == ("passed", 0, 55)


def test_the_same_comes_from_a_folder_its_outcomes_and_its_report_beside_them(tmp_path: Path) -> None:
    store(tmp_path, small_run())
    (tmp_path / "report.json").write_text("not read where outcomes.jsonl stands beside it")
    sides = [load(path) for path in (tmp_path, tmp_path / "outcomes.jsonl", tmp_path / "report.json")]
    assert sides[0].cells == sides[1].cells == sides[2].cells
    assert sides[0].cells[DENSE.id].scores == (1, 1, 1, 1, 0, 1, 1, 1)


def test_a_baseline_of_a_suite_stays_small(tmp_path: Path) -> None:
    draw = random.Random(0)
    cells = [
        cell("snapkv", f"0.{keep:02d}", f"task_{task}_micro", f"micro_model_{model}")
        for model in range(3)
        for task in range(10)
        for keep in range(1, 21)
    ]
    measured = [quality(one, [round(draw.random(), 4) for _ in range(50)]) for one in cells]
    run = side([*measured, *(timed(one, part, *[draw.random() for _ in range(6)]) for one in cells for part in PARTS)])
    write_baseline(tmp_path / "base.json", run)
    assert (tmp_path / "base.json").stat().st_size < 2_000_000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "no report.json and no baseline"),
        ('{"schema": 9, "run": {}, "cells": []}', "has schema 9"),
        ('{"schema": 1, "kind": "baseline", "run": {}, "cells": [{}], "sets": []}', "is damaged"),
        ('{"schema": 1, "run": {}, "cells": [3]}', "is damaged"),
    ],
)
def test_a_file_that_is_no_baseline_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "base.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "base.json")
