"""Compositions in the report against a brute force over the answers."""

from __future__ import annotations

import json
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import validate

from effivlm.records import Cell, Outcome
from effivlm.report import export, terminal
from effivlm.report.additive import methods_alone, verdict
from effivlm.report.document import build
from tests.outcomes import END, HEADER, cell, quality

N = 40
TASKS = ("docvqa_micro", "gqa_micro")
BOTH = "fastv:0.40+snapkv"
SCHEMA = Path(export.__file__).parent / "schema" / "report.schema.json"
Scores = dict[str, dict[str, list[float]]]


def ones(count: int, start: int = 0) -> list[float]:
    """Zeros at `start` and after, `count` of them, among ones."""
    return [float(not start <= place < start + count) for place in range(N)]


def run(scores: Scores, **fields: Any) -> list[Outcome]:
    """Dense, two methods and their composition, by task; a method that is left out did not run."""
    which = {
        "dense": cell(),
        "fastv": cell("fastv", "0.40"),
        "snapkv": cell("snapkv", "0.10"),
        BOTH: cell(BOTH, "0.10"),
    }
    found = []
    for task, own in scores.items():
        for name, values in own.items():
            one = which[name]
            found.append(quality(Cell(one.model, one.method, one.preset, one.keep, task), values, **fields))
    return found


def rows(scores: Scores, **fields: Any) -> dict[str, dict[str, Any]]:
    """By task, or "tasks" for the row over them."""
    found = build({**HEADER, "notes": []}, run(scores, **fields), END)
    validate(found, json.loads(SCHEMA.read_text()))
    return {row["tasks"][0] if row["over"] == "task" else "tasks": row for row in found["compositions"]}


def mixed(seed: int) -> Scores:
    rng = np.random.default_rng(seed)
    shares = {"dense": 0.9, "fastv": 0.8, "snapkv": 0.7, BOTH: 0.5}
    return {
        task: {name: rng.binomial(1, share, N).astype(float).tolist() for name, share in shares.items()}
        for task in TASKS
    }


@pytest.mark.parametrize("seed", range(3))
def test_what_a_composition_has_beyond_its_methods_is_what_the_answers_say_one_by_one(seed: int) -> None:
    scores = mixed(seed)
    found = rows(scores)
    ops: dict[str, list[float]] = {name: [] for name in scores[TASKS[0]]}
    beyond_op = []
    for task in TASKS:
        own = {name: np.array(values) for name, values in scores[task].items()}
        apart = [own[BOTH][at] - own["fastv"][at] - own["snapkv"][at] + own["dense"][at] for at in range(N)]
        row = found[task]
        assert row["difference"] == pytest.approx(sum(apart) / N)
        assert (row["better"], row["worse"]) == (sum(one > 0 for one in apart), sum(one < 0 for one in apart))
        assert (row["n"], row["scale"]) == (N, 100.0)
        ratios = {name: values.mean() / own["dense"].mean() for name, values in own.items()}
        for name, ratio in ratios.items():
            ops[name].append(ratio)
        assert row["expected"] == pytest.approx(ratios["fastv"] * ratios["snapkv"])
        assert row["value"] == pytest.approx(ratios[BOTH])
        beyond_op.append(ratios[BOTH] - ratios["fastv"] - ratios["snapkv"] + 1)
        rng = np.random.default_rng(99)
        means = np.sort([np.mean(rng.choice(apart, N)) for _ in range(4000)])
        assert row["interval"] == pytest.approx([means[100], means[-100]], abs=0.06)
    op = {name: sqrt(sum(one**2 for one in ratios) / 2) for name, ratios in ops.items()}
    whole = found["tasks"]
    assert whole["value"] == pytest.approx(op[BOTH])
    assert [part["value"] for part in whole["parts"]] == pytest.approx([op["fastv"], op["snapkv"]])
    assert whole["expected"] == pytest.approx(op["fastv"] * op["snapkv"])
    assert whole["difference"] == pytest.approx(sum(beyond_op) / 2)
    assert whole["interval"][0] < whole["difference"] < whole["interval"][1]


@pytest.mark.parametrize(
    ("together", "told"),
    [
        (ones(24), "loses more"),  # six and six would make twelve
        (ones(12), "open"),  # the same twelve
        (ones(0), "loses less"),
    ],
)
def test_the_verdict_says_whether_losses_add_up(together: list[float], told: str) -> None:
    own = {"dense": ones(0), "fastv": ones(6), "snapkv": ones(6, start=6), BOTH: together}
    found = rows(dict.fromkeys(TASKS, own))
    assert {row["verdict"] for row in found.values()} == {told}
    assert {row["q"] is not None and row["q"] <= 0.05 for row in found.values()} == {told != "open"}


def test_losses_on_the_same_samples_add_up_to_less_than_both_and_no_difference_is_made_by_the_order() -> None:
    own = {"dense": ones(0), "fastv": ones(12), "snapkv": ones(12), BOTH: ones(12)}
    first = rows({TASKS[0]: own})
    assert first[TASKS[0]]["difference"] == pytest.approx(12 / N)
    turned = dict(reversed(list(own.items())))
    assert rows({TASKS[0]: turned}) == first


def test_a_method_that_did_not_run_alone_leaves_no_number_and_is_named() -> None:
    scores = mixed(0)
    for own in scores.values():
        del own["fastv"]
    found = rows(scores)
    assert set(found) == set(TASKS)
    for row in found.values():
        assert (row["difference"], row["expected"], row["n"]) == (None, None, 0)
        assert row["verdict"] == "not run alone"
        assert [part["value"] is None for part in row["parts"]] == [True, False]


def test_a_sample_that_broke_under_one_method_is_in_no_comparison() -> None:
    own: dict[str, Any] = {"dense": ones(0), "fastv": [None, *ones(6)[1:]], "snapkv": ones(6, 6), BOTH: ones(12)}
    row = rows({TASKS[0]: own})[TASKS[0]]
    assert (row["n"], row["worse"], row["better"]) == (N - 1, 0, 0)


def test_random_weights_and_few_samples_are_given_no_verdict() -> None:
    few = {name: values[:4] for name, values in mixed(0)[TASKS[0]].items()}
    assert rows({TASKS[0]: few})[TASKS[0]]["verdict"] == "n too small"
    told = rows(mixed(0), weights="random")
    assert {row["verdict"] for row in told.values()} == {"not comparable"}


def test_the_methods_of_a_composition_are_found_by_their_own_budgets_and_presets() -> None:
    one = cell("awq@balanced:w4g128+fastv@effivlm+snapkv:64tok", "0.10")
    assert [(part.method, part.preset, part.keep) for part in methods_alone(one)] == [
        ("awq", "balanced", "w4g128"),
        ("fastv", "effivlm", "0.10"),
        ("snapkv", "paper", "64tok"),
    ]
    assert methods_alone(cell("fastv", "0.10")) == ()


@pytest.mark.parametrize(
    ("interval", "q", "told"),
    [
        (None, None, "n too small"),
        ([-0.2, -0.1], 0.01, "loses more"),
        ([-0.2, -0.1], 0.2, "open"),
        ([0.1, 0.2], None, "loses less"),
        ([-0.1, 0.1], 0.01, "open"),
        ([1e-16, 0.1], 0.01, "open"),
        ([-0.1, -1e-16], 0.01, "open"),
    ],
)
def test_a_verdict_needs_an_interval_off_zero_and_a_discovery(
    interval: list[float] | None, q: float | None, told: str
) -> None:
    assert verdict(interval, q) == told


def test_tables_and_terminal_show_the_methods_alone_and_what_is_beyond_them() -> None:
    document = build(HEADER, run(mixed(1)), END)
    head, *body = export.tables(document)["compositions"]
    found = [dict(zip(head, row, strict=True)) for row in body]
    assert [one["tasks"] for one in found] == [list(TASKS), [TASKS[0]], [TASKS[1]]]
    assert {(one["part_1"], one["part_1_keep_fraction"], one["part_2"], one["part_3"]) for one in found} == {
        ("fastv", 0.4, "snapkv", None)
    }
    assert "compositions beside their methods alone" in terminal.table(document)
    plain = build(HEADER, [one for one in run(mixed(1)) if one.cell.method != BOTH], END)
    assert plain["compositions"] == []
    assert "compositions" not in export.tables(plain)
    assert set(plain["run"]["discoveries"]["families"]) == {"dense", "random", "random_op"}
