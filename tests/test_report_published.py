"""The paper's own numbers beside a run."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from effivlm import registry
from effivlm.records import dump
from effivlm.report import published
from effivlm.report.document import build
from tests.outcomes import END, HEADER, cell, quality
from tests.test_report_document import schema


def overlay(*settings: tuple[str, str, str, str]) -> list[dict[str, Any]]:
    """Of cells given as model, method, keep, task."""
    outcomes = [quality(cell(method, keep, task, model), [1.0]) for model, method, keep, task in settings]
    found = build({**HEADER, "notes": []}, outcomes, END)
    jsonschema.validate(found, schema("report"))
    rows: list[dict[str, Any]] = found["published"]
    return rows


def test_a_measured_setting_gets_the_printed_score_op_and_og_with_their_source() -> None:
    score, *_ = overlay(("llava_onevision_7b", "fastv", "0.01", "chartqa"))
    ttft, decode, op, og = overlay(("llava_onevision_7b", "fastv", "0.01", "docvqa"))
    setting = {"method": "fastv", "keep": 0.01}
    source = "EffiVLM-Bench, arXiv 2506.00479, "
    model = {"model": "llava_onevision_7b"}
    assert score == {
        "source": source + "pruning table",
        **model,
        **setting,
        "task": "chartqa",
        "of": "score",
        "value": 14.0,
    }
    plot = source + "efficiency scatter plot of LLaVA-OneVision-7B on DocVQA, read off to about 0.02"
    where = {"source": plot, **model, **setting, "task": "docvqa"}
    assert [ttft, decode] == [{**where, "of": "ttft", "value": 3.27}, {**where, "of": "decode", "value": 1.98}]
    assert op == {"source": source + "pruning table", **model, **setting, "task": None, "of": "op", "value": 0.48}
    assert og == {
        "source": source + "table of OG and OL",
        "model": None,
        **setting,
        "task": None,
        "of": "og",
        "value": 58.46,
    }


@pytest.mark.parametrize(
    ("model", "method", "keep", "task", "value"),
    [
        ("qwen2_vl_7b", "dense", "1.00", "mme_image", 2327.8),
        ("llava_onevision_7b", "streaming_llm", "0.01", "chartqa", 58.2),
        ("internvl2_5_38b", "dense", "1.00", "ocrbench", 802.0),
        ("llava_onevision_7b", "wanda", "sparsity0.20", "chartqa", 78.84),
        ("llava_onevision_7b", "awq", "w4g128", "gqa", 61.84),
        ("llava_onevision_7b", "pyramid_kv", "0.40", "textvqa", 69.7),
    ],
)
def test_names_of_the_registry_lead_to_those_of_the_paper(
    model: str, method: str, keep: str, task: str, value: float
) -> None:
    (score,) = [row for row in overlay((model, method, keep, task)) if row["of"] == "score"]
    assert score["value"] == value


def test_nothing_is_laid_over_micro_models_micro_tasks_and_settings_that_were_not_printed() -> None:
    assert overlay(("micro_llava_onevision", "fastv", "0.01", "docvqa")) == []
    assert overlay(("llava_onevision_7b", "fastv", "0.01", "docvqa_micro")) == []
    assert overlay(("llava_onevision_7b", "fastv", "0.02", "docvqa")) == []
    assert overlay(("llava_onevision_7b", "random_visual", "0.01", "docvqa")) == []
    assert overlay(("qwen2_vl_7b", "wanda", "0.50", "docvqa")) == []


def test_a_setting_that_several_cells_have_is_printed_once() -> None:
    rows = overlay(*[("llava_onevision_7b", "fastv", "0.10", task) for task in ("docvqa", "gqa")])
    assert [(row["of"], row["task"]) for row in rows] == [
        ("ttft", "docvqa"),
        ("decode", "docvqa"),
        ("op", None),
        ("score", "gqa"),
    ]


def test_the_shipped_tables_hold_every_printed_row_and_no_other_value_than_numbers() -> None:
    data = published.load()
    assert [len(data[name]) for name in ("pruning", "parameter", "cache", "og", "ol", "oe")] == [27, 11, 144, 9, 9, 9]
    assert all(len(speedups) == len(data["cache_budgets"]) for row in data["oe"] for speedups in row[1:])
    assert all(len(row[-1]) == 15 for row in [*data["pruning"], *data["parameter"]])
    assert all(len(row[-1]) == len(data["cache_budgets"]) for row in data["cache"])
    assert json.loads(dump(data)) == data
    assert set(data["tasks"].values()) == set(data["benchmarks"])
    names = {row[2] for name in ("pruning", "parameter", "cache") for row in data[name]}
    assert names == set(data["methods"].values())


@pytest.mark.parametrize(
    ("task", "laid"),
    [
        *[("chartqa", True), ("ocrbench", True), ("mme_image", True)],
        *[("docvqa", False), ("mmvet", False), ("mmmu", False)],
    ],
)
def test_a_printed_score_lies_over_a_task_only_where_its_file_says_that_they_compare(task: str, laid: bool) -> None:
    rows = overlay(("llava_onevision_7b", "fastv", "0.01", task))
    assert ("score" in {row["of"] for row in rows}) == laid
    assert str(registry.load("tasks", task).comparable).startswith("yes") == laid  # type: ignore[attr-defined]
    assert {"op", "og"} <= {row["of"] for row in rows}, "means of the paper's benchmarks say so themselves"


def test_a_task_that_is_not_installed_is_not_comparable() -> None:
    assert not published.comparable("somebodys_docvqa")
