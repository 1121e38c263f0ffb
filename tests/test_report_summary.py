"""The summary of a document: same sets, intervals, Pareto front."""

from __future__ import annotations

from typing import Any

import pytest

from effivlm.records import Outcome
from effivlm.report.document import build
from tests.outcomes import END, HEADER, cell, quality, timed

RIGHT = [1.0, 1.0, 1.0, 0.0]


def summary(outcomes: list[Outcome]) -> dict[str, Any]:
    found: dict[str, Any] = build(HEADER, outcomes, END)["summary"]
    return found


def grid(methods: dict[str, list[str]], models: tuple[str, ...] = ("m",)) -> list[Outcome]:
    """Quality of each method on its tasks at keep 0.10, beside dense on all tasks."""
    tasks = dict.fromkeys(task for chosen in methods.values() for task in chosen)
    found = [quality(cell(task=task, model=model), RIGHT) for model in models for task in tasks]
    for model in models:
        for place, (method, chosen) in enumerate(methods.items()):
            scores = [1.0] * (place % 3 + 1) + [0.0] * (3 - place % 3)
            found += [quality(cell(method, "0.10", task, model), scores, [True, True, False, False]) for task in chosen]
    return found


def test_methods_are_compared_on_the_tasks_that_all_have_and_more_is_marked_own() -> None:
    rows = summary(grid({"fastv": ["a", "b", "c"], "snapkv": ["a", "b"]}))["op"]
    assert [(row["method"], row["set"], row["tasks"]) for row in rows] == [
        ("fastv", "common", ["a", "b"]),
        ("fastv", "own", ["a", "b", "c"]),
        ("snapkv", "common", ["a", "b"]),
    ]


def test_methods_without_a_task_in_common_have_only_rows_of_their_own() -> None:
    found = summary(grid({"fastv": ["a"], "snapkv": ["b"]}))
    assert [(row["set"], row["n"]) for row in found["op"]] == [("own", 1), ("own", 1)]
    assert len(found["pareto"]) == 2


def test_each_row_carries_value_count_and_interval() -> None:
    found = summary(grid({"fastv": ["a", "b"]}))
    (op,), (ol,) = found["op"], found["ol"]
    assert op["value"] == op["mean"] == pytest.approx(1 / 3)
    assert op["interval"][0] <= op["value"] <= op["interval"][1]
    assert (ol["value"], ol["n"]) == (0.5, 2)
    assert ol["interval"][0] < 0.5 < ol["interval"][1]


def test_dense_is_the_measure_and_no_row() -> None:
    found = summary(grid({"fastv": ["a"]}))
    assert {row["method"] for rows in found.values() for row in rows} == {"fastv"}


def test_og_of_several_models_stands_over_tasks_and_over_models() -> None:
    rows = summary(grid({"fastv": ["a", "b"]}, models=("m", "k")))["og"]
    assert [(row["models"], row["over"]) for row in rows] == [
        (["m"], "tasks"),
        (["k"], "tasks"),
        (["m", "k"], "tasks"),
        (["m", "k"], "models"),
    ]
    assert all(row["value"] == pytest.approx(0, abs=1e-9) for row in rows)


def test_one_task_has_no_spread_and_so_no_og() -> None:
    assert summary(grid({"fastv": ["a"]}))["og"] == []


def test_the_interval_of_two_tasks_is_narrower_than_of_one() -> None:
    """Tasks resample on their own; with one shared resample the average would be as uncertain as each task."""
    one, two = (summary(grid({"fastv": tasks}))["ol"][0]["interval"] for tasks in (["a"], ["a", "b", "c", "d"]))
    assert two[1] - two[0] < one[1] - one[0]


def test_oe_is_the_geometric_mean_with_its_count() -> None:
    found = []
    for task, own in (("a", 0.05), ("b", 0.2)):
        found += [timed(cell(task=task), "ttft", *[0.1] * 6), timed(cell("fastv", "0.10", task), "ttft", *[own] * 6)]
    (row,) = summary(found)["oe"]
    assert (row["of"], row["n"], row["value"]) == ("ttft", 2, pytest.approx(1.0))
    assert row["interval"] == [pytest.approx(1.0), pytest.approx(1.0)]


def test_a_setting_beaten_both_ways_is_not_on_the_front() -> None:
    found = [quality(cell(), RIGHT), timed(cell(), "ttft", 0.4)]
    for method, keep, right, time in (("good", "0.10", 3, 0.1), ("bad", "0.20", 2, 0.2), ("slow", "0.40", 4, 0.4)):
        which = cell(method, keep)
        found += [quality(which, [1.0] * right + [0.0] * (4 - right)), timed(which, "ttft", time)]
    fronts = {row["method"]: row["front"] for row in summary(found)["pareto"]}
    assert fronts == {"good": ["keep", "kv", "ttft"], "bad": [], "slow": ["keep", "kv", "ttft"]}


def test_a_point_lacks_a_cost_that_one_of_its_tasks_lacks() -> None:
    outcomes = [*grid({"fastv": ["a", "b"]}), timed(cell(task="a", model="m"), "ttft", 0.2)]
    outcomes.append(timed(cell("fastv", "0.10", "a", "m"), "ttft", 0.1))
    (point,) = summary(outcomes)["pareto"]
    assert point["costs"] == {"keep": 0.1, "kv": pytest.approx(0.1), "ttft": None, "decode": None}
