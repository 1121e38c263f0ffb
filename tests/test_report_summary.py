"""The summary of a document: same sets, intervals, Pareto front."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from effivlm.records import Outcome
from effivlm.report.costs import SPEEDUPS
from effivlm.report.document import build
from tests.outcomes import END, HEADER, cell, quality, timed

RIGHT = [1.0, 1.0, 1.0, 0.0] * 2


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
            flags = [True, True, False, False] * 2
            found += [quality(cell(method, "0.10", task, model), scores * 2, flags) for task in chosen]
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
    assert found["refused"] == []


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


def test_a_share_of_tokens_and_one_of_the_cache_are_no_budgets_of_each_other() -> None:
    """Over keep, a cache method does not push one that drops tokens off the front; over the same cache bytes it does."""
    found = [quality(cell(), RIGHT)]
    found += [quality(cell("fastv", "0.10"), [1.0] * 2 + [0.0] * 6), quality(cell("snapkv", "0.10"), RIGHT)]
    points = {row["method"]: (row["budget_of"], row["front"]) for row in summary(found)["pareto"]}
    assert points == {"fastv": ("visual tokens", ["keep"]), "snapkv": ("prompt entries", ["keep", "kv"])}


def of_kinds(*origins: tuple[str, str, dict[str, str]]) -> list[Outcome]:
    """Dense and fastv by (model, task, what differs), each with quality and ttft."""
    found = []
    for model, task, fields in origins:
        for which, own, seconds in (
            (cell(task=task, model=model), RIGHT, 0.2),
            (cell("fastv", "0.10", task, model), [1.0] * 8, 0.1),
        ):
            engine = fields.get("engine", "eager")
            rest = {name: value for name, value in fields.items() if name != "engine"}
            found.append(replace(quality(which, own, [True] * len(own)), engine=engine, **rest))
            found.append(replace(timed(which, "ttft", seconds, engine=engine), **rest))
    return found


def test_scores_of_two_kinds_have_no_common_mean_but_times_have_one() -> None:
    found = summary(of_kinds(("m", "a", {}), ("m", "b", {}), ("m", "wilder", {"scoring": "judge"})))
    assert (found["op"], found["og"], found["ol"], found["pareto"]) == ([], [], [], [])
    assert [row["n"] for row in found["oe"]] == [3]
    reason = "no mean over scoring judge (wilder) and rule (a, b)"
    assert found["refused"] == [
        {"table": table, "reason": reason, "select": "--vlm-tasks a,b"} for table in ("op", "og", "ol")
    ]


def test_engines_that_differ_by_model_leave_each_model_its_own_row() -> None:
    found = summary(
        of_kinds(("m", "a", {}), ("m", "b", {}), ("k", "a", {"engine": "graph"}), ("k", "b", {"engine": "graph"}))
    )
    assert [row["models"] for row in found["oe"]] == [row["models"] for row in found["ol"]] == [["m"], ["k"]]
    assert {row["table"]: row["select"] for row in found["refused"]} == dict.fromkeys(
        ("og", "ol", "oe"), "--vlm-models m"
    )
    assert found["refused"][-1]["reason"] == "ttft: no mean over engine eager (m) and graph (k)"


def test_times_of_random_weights_are_averaged_with_no_others() -> None:
    found = summary(of_kinds(("m", "a", {"weights": "random"}), ("k", "a", {})))
    assert [(row["models"], row["value"]) for row in found["oe"]] == [(["m"], 2.0), (["k"], 2.0)]
    assert [(row["models"], row["n"], row["undefined"]) for row in found["ol"]] == [(["k"], 1, 0), (["k"], 1, 1)]
    (refused,) = found["refused"]
    assert refused["reason"] == "ttft: no mean over weights random (m) and trained (k)"


def test_a_refusal_selects_one_model_where_neither_models_nor_tasks_tell_the_groups_apart() -> None:
    graph = {"engine": "graph"}
    found = summary(of_kinds(("m", "a", {}), ("m", "b", {}), ("m", "c", graph), ("k", "a", graph)))
    (row,) = [row for row in found["refused"] if row["table"] == "oe" and "k on a" in row["reason"]]
    assert row["reason"] == "ttft: no mean over engine eager (m on a, m on b) and graph (m on c, k on a)"
    assert row["select"] == "--vlm-models m --vlm-tasks a,b"


def test_a_refusal_selects_tasks_where_models_would_do_as_well() -> None:
    found = summary(of_kinds(("m", "a", {}), ("m", "b", {}), ("k", "c", {"engine": "graph"})))
    assert {row["select"] for row in found["refused"]} == {"--vlm-tasks a,b"}


def test_a_cell_scored_in_another_way_than_dense_has_no_ratio_and_says_so() -> None:
    judged = replace(quality(cell("fastv", "0.10"), RIGHT), scoring="judge")
    _, one = build(HEADER, [quality(cell(), RIGHT), judged], END)["cells"]
    assert (one["ratio"], one["paired"], one["scoring"]) == (None, None, "judge")
    assert one["remarks"] == ["scored by judge and dense by rule, so there is no ratio"]


def test_a_cell_marked_by_another_judge_than_dense_has_no_ratio_and_says_so() -> None:
    own, other = (replace(quality(which, RIGHT), scoring="judge") for which in (cell(), cell("fastv", "0.10")))
    facts = {"judge": "a", "noise": None, "agreement": None}
    _, one = build(HEADER, [replace(own, judged=facts), replace(other, judged={**facts, "judge": "b"})], END)["cells"]
    assert (one["ratio"], one["remarks"]) == (None, ["marked by b and dense by a, so there is no ratio"])
    _, one = build(HEADER, [replace(own, judged=facts), replace(other, judged=facts)], END)["cells"]
    assert one["ratio"] == 1.0


def test_a_point_has_no_speedup_over_several_engines() -> None:
    outcomes = [*grid({"fastv": ["a", "b"]})]
    for task, engine in (("a", "eager"), ("b", "graph")):
        outcomes += [timed(cell(task=task, model="m"), "ttft", 0.2, engine=engine)]
        outcomes += [timed(cell("fastv", "0.10", task, "m"), "ttft", 0.1, engine=engine)]
    (point,) = summary(outcomes)["pareto"]
    assert point["costs"]["ttft"] is None


def test_a_point_lacks_a_cost_that_one_of_its_tasks_lacks() -> None:
    outcomes = [*grid({"fastv": ["a", "b"]}), timed(cell(task="a", model="m"), "ttft", 0.2)]
    outcomes.append(timed(cell("fastv", "0.10", "a", "m"), "ttft", 0.1))
    (point,) = summary(outcomes)["pareto"]
    assert point["costs"] == {"keep": 0.1, "kv": pytest.approx(0.1), **dict.fromkeys(SPEEDUPS)}
