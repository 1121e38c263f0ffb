"""Methods of the checkpoint in the report: their own rows, what they store, and what is said of speed."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
from jsonschema import validate

from effivlm.records import Achieved, Divergence, Outcome, Product, dump
from effivlm.report import export, terminal
from effivlm.report.columns import FURTHER, PRINTED
from effivlm.report.document import build
from tests.outcomes import END, HEADER, cell, quality, timed

SCHEMAS = Path(export.__file__).parent / "schema"
OP = ("op_ratio", "op_ratio_low", "op_ratio_high")
TASKS = ("docvqa_micro", "gqa_micro")
DENSE = {"docvqa_micro": [1.0] * 7 + [0.0], "gqa_micro": [1.0] * 6 + [0.0] * 2}
RIGHT = {"rtn": {"docvqa_micro": 6, "gqa_micro": 6}, "magnitude": {"docvqa_micro": 4, "gqa_micro": 3}}
SETTINGS = {"rtn": "w4g128", "magnitude": "sparsity0.50"}
MADE = Product("p" * 20, "llmcompressor", "compressed-tensors", "dequantised", 30, 100, 200, 400, 61.5)
GPTQ = replace(MADE, reading="humming", calibration="micro", samples=128, tokens="balanced", drawn="d" * 20)


def of_weights(method: str, task: str, **fields: Any) -> Outcome:
    keep, right = SETTINGS[method], RIGHT[method][task]
    bits = keep.startswith("w")
    counted, kept = (4.158, 26) if bits else (0.5, 50)
    told = Achieved(
        "weight bits" if bits else "weights", kept / 100, kept, 100, kept / 100, asked=keep, counted=counted
    )
    product = MADE if bits else replace(MADE, packing="dense", reading="zeros stored densely", disk_bytes=100)
    scores = [1.0] * right + [0.0] * (8 - right)
    same = [one == other for one, other in zip(scores, DENSE[task], strict=True)]
    facts = {"achieved": told, "product": product, "weights": "w4a16 g128, dequantised" if bits else "trained"}
    return quality(cell(method, keep, task), scores, same, **{**facts, **fields})


def run() -> list[Outcome]:
    """Two methods of the checkpoint and one of tokens on two tasks."""
    found = []
    for task in TASKS:
        found += [quality(cell(task=task), DENSE[task]), quality(cell("fastv", "0.10", task), [1.0] * 4 + [0.0] * 4)]
        found += [of_weights(method, task) for method in RIGHT]
    return found


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return build({**HEADER, "notes": []}, run(), END)


def test_a_row_stands_for_each_setting_of_weights_and_none_for_one_of_tokens(document: dict[str, Any]) -> None:
    found = [(row["method"], row["keep"], row["unit"]) for row in document["parameters"]]
    assert found == [("magnitude", "sparsity0.50", "fraction of zeros"), ("rtn", "w4g128", "bits a weight")]
    validate(document, json.loads((SCHEMAS / "report.schema.json").read_text()))


def test_op_and_loyalty_of_a_row_are_those_of_its_own_cells_alone(document: dict[str, Any]) -> None:
    for row in document["parameters"]:
        right = RIGHT[row["method"]]
        ratios = [right[task] / sum(DENSE[task]) for task in TASKS]
        assert row["op"]["value"] == pytest.approx(sqrt(sum(one**2 for one in ratios) / 2))
        assert row["op"]["tasks"] == list(TASKS)
        assert row["op"]["interval"][0] < row["op"]["value"] < row["op"]["interval"][1]
        alike = [1 - abs(right[task] - sum(DENSE[task])) / 8 for task in TASKS]
        assert row["ol"]["value"] == pytest.approx(sum(alike) / 2)
        assert {task: told["score"] for task, told in row["by_task"].items()} == {
            task: right[task] / 8 for task in TASKS
        }


def test_what_was_counted_stored_and_calibrated_on_stands_in_the_row_as_the_run_recorded_it() -> None:
    found = build(HEADER, [of_weights("rtn", TASKS[0], product=GPTQ)], END)
    (row,) = found["parameters"]
    assert (row["asked"], row["counted"]) == ("w4g128", 4.158)
    assert row["product"]["drawn"] == "d" * 20
    assert (row["product"]["calibration"], row["product"]["samples"], row["product"]["seconds"]) == ("micro", 128, 61.5)
    assert row["op"] is None  # there is no dense


@pytest.mark.parametrize(
    ("method", "reading", "speed"),
    [
        ("rtn", "dequantised", "no speed-up: the weights are dequantised"),
        ("rtn", "humming", "read packed by humming"),
        ("rtn", "humming and dequantised", "read packed by humming in part; the rest is dequantised"),
        ("magnitude", "zeros stored densely", "no speed-up: zeros are stored"),
    ],
)
def test_it_is_said_whether_any_weight_is_read_faster(method: str, reading: str, speed: str) -> None:
    outcome = of_weights(method, TASKS[0], product=replace(MADE, reading=reading))
    (row,) = build(HEADER, [outcome], END)["parameters"]
    assert row["speed"].startswith(speed)


def test_speed_that_was_measured_stands_beside_quality_and_an_untrusted_one_is_in_no_mean() -> None:
    kept = of_weights("rtn", TASKS[0]).achieved
    times = [timed(cell(), "decode", *[4.0] * 6), timed(cell("rtn", "w4g128"), "decode", *[2.0] * 6, achieved=kept)]
    (row,) = (one for one in build(HEADER, [*run(), *times], END)["parameters"] if one["method"] == "rtn")
    assert row["oe"]["decode"]["value"] == pytest.approx(2.0)
    assert (row["oe"]["decode"]["tasks"], row["oe"]["ttft"]) == ([TASKS[0]], None)
    assert row["by_task"][TASKS[0]]["speedups"]["decode"]["value"] == pytest.approx(2.0)
    doubted = [replace(one, remarks=("measured beside other xdist workers",)) for one in times]
    (row,) = (one for one in build(HEADER, [*run(), *doubted], END)["parameters"] if one["method"] == "rtn")
    assert row["oe"]["decode"] is None
    assert row["by_task"][TASKS[0]]["untrusted"] == ["decode"]


def test_divergences_stand_beside_the_score_in_rows_and_tables(tmp_path: Path) -> None:
    def away(method: str, task: str, nats: float) -> Outcome:
        found = of_weights(method, task)
        answers = (replace(one, kl=Divergence(nats + at / 8, 3, 1e-7)) for at, one in enumerate(found.answers))
        return replace(found, answers=tuple(answers))

    dense = [quality(cell(task=task), DENSE[task]) for task in TASKS]
    made = [away("rtn", task, nats) for task, nats in zip(TASKS, (0.0, 1.0), strict=True)]
    found = build({**HEADER, "notes": []}, [*dense, *made, of_weights("magnitude", TASKS[0])], END)
    validate(found, json.loads((SCHEMAS / "report.schema.json").read_text()))
    magnitude, rtn = found["parameters"]
    assert (magnitude["kl"], magnitude["by_task"][TASKS[0]]["kl"]) == (None, None)
    each = [0.4375, 1.4375]
    assert [rtn["by_task"][task]["kl"]["value"] for task in TASKS] == each
    assert rtn["kl"] == pytest.approx(sum(each) / 2)
    export.export(found, tmp_path, ["csv", "latex"])
    head, *rows = csv.reader((tmp_path / "cells.csv").read_text().splitlines())
    cells = [dict(zip(head, row, strict=True)) for row in rows]
    told = {one["task"]: one for one in cells if one["method"] == "rtn"}
    for task, value in zip(TASKS, each, strict=True):
        one = told[task]
        assert (float(one["kl_nats"]), one["kl_positions_count"], float(one["kl_rest_share"])) == (value, "24", 1e-7)
        assert float(one["kl_nats_low"]) < value < float(one["kl_nats_high"])
    assert {one["kl_nats"] for one in cells if one["method"] in ("dense", "magnitude")} == {""}
    assert "0.9375" in (tmp_path / "parameters.csv").read_text()
    assert "0.9375" in (tmp_path / "parameters.tex").read_text()


def test_a_run_that_recorded_no_product_has_its_rows_without_sizes() -> None:
    found = build(HEADER, [of_weights("rtn", TASKS[0], product=None), of_weights("magnitude", TASKS[0])], END)
    rtn = next(row for row in found["parameters"] if row["method"] == "rtn")
    assert (rtn["product"], rtn["speed"]) == (None, "")
    assert "rtn" in terminal.table(found)


def test_a_run_without_methods_of_the_checkpoint_has_no_such_section() -> None:
    found = build(HEADER, [quality(cell(), [1.0] * 8), quality(cell("fastv", "0.10"), [1.0] * 8)], END)
    assert found["parameters"] == []
    assert "parameters" not in export.tables(found)
    assert "methods of the checkpoint" not in terminal.table(found)


def test_tables_and_terminal_hold_the_same_numbers(document: dict[str, Any], tmp_path: Path) -> None:
    head, *rows = export.tables(document)["parameters"]
    found = [dict(zip(head, row, strict=True)) for row in rows]
    assert [(one["asked"], one["counted"], one["disk_bytes"], one["made_s"]) for one in found] == [
        ("sparsity0.50", 0.5, 100, 61.5),
        ("w4g128", 4.158, 30, 61.5),
    ]
    head, *rows = export.tables(document)["cells"]
    cells = [dict(zip(head, row, strict=True)) for row in rows]
    assert {(one["asked"], one["counted"]) for one in cells if one["method"] == "rtn"} == {("w4g128", 4.158)}
    assert {one["asked"] for one in cells if one["method"] == "fastv"} == {""}
    (line,) = (
        one for one in terminal.table(document).split("methods of the checkpoint")[1].splitlines() if "rtn" in one
    )
    assert line.split()[1:3] == ["w4g128", "4.158"]
    assert "30%" in line
    assert "62 s" in line


def test_in_latex_stand_the_columns_that_fit_a_page(document: dict[str, Any], tmp_path: Path) -> None:
    export.export(document, tmp_path, ["latex", "csv"])
    head = (tmp_path / "parameters.tex").read_text().splitlines()[2].replace("\\_", "_").removesuffix(r" \\")
    beside = ["counted", *OP, "ol_share", "kl_nats", "read_by", "disk_bytes", "disk_bytes_dense"]
    assert head.split(" & ") == ["model", "method", "asked", *beside]
    for name, columns in PRINTED.items():
        assert set(columns) - {"asked", "keep_fraction", "model", "method", *OP} <= set(FURTHER[name]), name
    assert len((tmp_path / "parameters.csv").read_text().splitlines()[0].split(",")) == len(FURTHER["parameters"])


def test_a_product_reads_back_equal_and_follows_the_outcome_schema() -> None:
    outcome = of_weights("rtn", TASKS[0], product=GPTQ)
    stored = json.loads(dump(outcome.to_json()))
    assert Outcome.from_json(stored) == outcome
    validate(stored, json.loads((SCHEMAS / "outcome.schema.json").read_text()))
    with pytest.raises(ValueError, match="product"):
        Outcome.from_json({**stored, "product": "rtn"})
