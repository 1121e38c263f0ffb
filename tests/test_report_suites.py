"""Suites in the report: OP over exactly those of their tasks that a run has, and never over more than one kind of score."""

from __future__ import annotations

import json
from dataclasses import replace
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
from jsonschema import validate

from effivlm.records import Outcome
from effivlm.report import export, terminal
from effivlm.report.document import build
from effivlm.suites import suites
from tests.outcomes import END, HEADER, cell, quality

N = 20
DENSE, RIGHT = 16, {"docvqa": 12, "chartqa": 8, "gqa": 4, "mmvet": 10, "imagedc": 6, "pope": 2}
SCHEMA = Path(export.__file__).parent / "schema" / "report.schema.json"
JUDGED = ("mmvet", "imagedc")


def scores(right: int) -> list[float]:
    return [1.0] * right + [0.0] * (N - right)


def run(*tasks: str, lacking: str = "", methods: tuple[str, ...] = ("fastv", "snapkv")) -> list[Outcome]:
    """Two methods on these tasks; snapkv has not run on the one that is `lacking`."""
    found = []
    for task in tasks:
        fields: dict[str, Any] = {"scoring": "judge" if task in JUDGED else "rule"}
        found.append(quality(cell(task=task), scores(DENSE), **fields))
        for method in methods:
            if (method, task) != ("snapkv", lacking):
                right = RIGHT[task] + (method == "snapkv")
                found.append(quality(cell(method, "0.10", task), scores(right), **fields))
    return found


def document(outcomes: list[Outcome]) -> dict[str, Any]:
    found = build({**HEADER, "notes": []}, outcomes, END)
    validate(found, json.loads(SCHEMA.read_text()))
    return found


def op(method: str, *tasks: str) -> float:
    ratios = [(RIGHT[task] + (method == "snapkv")) / DENSE for task in tasks]
    return sqrt(sum(ratio**2 for ratio in ratios) / len(ratios))


def rows(found: dict[str, Any], suite: str, scored: str = "rule") -> list[dict[str, Any]]:
    return [row for row in found["suites"] if (row["suite"], row["scored"]) == (suite, scored)]


def test_op_of_a_suite_is_over_its_own_tasks_that_were_run_and_says_of_how_many() -> None:
    found = document(run("docvqa", "chartqa", "gqa", "pope"))
    asked = suites("tasks")
    for suite, tasks in {
        "paper": ("docvqa", "chartqa", "gqa"),
        "hard": ("docvqa", "chartqa"),
        "reviewers": ("pope", "gqa"),
    }.items():
        own = rows(found, suite)
        assert [row["method"] for row in own] == ["fastv", "snapkv"]
        for row in own:
            assert row["tasks"] == [task for task in asked[suite] if task in tasks]
            assert row["value"] == pytest.approx(op(row["method"], *tasks))
            assert row["mean"] == pytest.approx(sum(op(row["method"], task) for task in tasks) / len(tasks))
            assert (row["n"], row["of"], row["set"]) == (len(tasks), len(asked[suite]), "common")
            assert set(row["missing"]) == set(asked[suite]) - {"docvqa", "chartqa", "gqa", "pope"}
            assert row["interval"][0] < row["value"] < row["interval"][1]
    assert {row["suite"] for row in found["suites"]} == {"paper", "hard", "reviewers"}  # none of video was run


def test_what_a_judge_marked_is_in_no_mean_with_what_a_rule_scored() -> None:
    found = document(run("docvqa", "chartqa", "mmvet", "imagedc"))
    for scored, tasks in {"rule": ("docvqa", "chartqa"), "judge": ("mmvet", "imagedc")}.items():
        own = rows(found, "paper", scored)
        assert [row["value"] for row in own] == pytest.approx([op(row["method"], *tasks) for row in own])
        assert {row["n"] for row in own} == {2}
    assert any(row["table"] == "op" for row in found["summary"]["refused"])


def test_settings_are_compared_on_the_tasks_of_the_suite_that_all_of_them_have() -> None:
    found = rows(document(run("docvqa", "chartqa", "gqa", lacking="gqa")), "paper")
    told = {(row["method"], row["set"]): row for row in found}
    assert set(told) == {("fastv", "common"), ("snapkv", "common"), ("fastv", "own")}
    for method in ("fastv", "snapkv"):
        assert told[method, "common"]["value"] == pytest.approx(op(method, "docvqa", "chartqa"))
    assert told["fastv", "own"]["value"] == pytest.approx(op("fastv", "docvqa", "chartqa", "gqa"))


def test_a_task_under_two_engines_is_refused_by_the_suites_name() -> None:
    outcomes = run("docvqa", "chartqa")
    found = document([replace(one, engine=f"engine of {one.cell.task}") for one in outcomes])
    assert found["suites"] == []
    assert {row["table"] for row in found["summary"]["refused"]} >= {"suite paper", "suite hard", "op"}


def test_a_run_of_no_suites_task_has_no_such_section() -> None:
    found = document([quality(cell(), scores(DENSE)), quality(cell("fastv", "0.10"), scores(4))])
    assert found["suites"] == []
    assert "suites" not in export.tables(found)
    assert "suite" not in terminal.table(found)


def test_tables_and_terminal_say_n_of_m() -> None:
    found = document(run("docvqa", "chartqa", "gqa", "pope"))
    head, *body = export.tables(found)["suites"]
    told = [dict(zip(head, row, strict=True)) for row in body]
    assert {(one["suite"], one["tasks_count"], one["suite_tasks_count"]) for one in told} == {
        ("paper", 3, 17),
        ("hard", 2, 6),
        ("reviewers", 2, 11),
    }
    text = terminal.table(found)
    assert "suite hard, scored by rule: 2 of 6 tasks" in text
    assert f"{op('fastv', 'docvqa', 'chartqa'):.3f} [" in text.split("suite hard")[1]
    alone = terminal.table(document(run("docvqa", "chartqa")))
    assert "suite hard, scored by rule: 2 of 6 tasks, all that it ran" in alone
