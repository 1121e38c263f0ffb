"""Budgets of all kinds in one run: each stands in the words it was asked in, and apart from those of another kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import effivlm.report
from effivlm.records import Achieved, Budget, Outcome
from effivlm.report.baseline import load, write_baseline
from effivlm.report.limits import Limits
from effivlm.report.payload import embed, payload
from effivlm.report.terminal import table
from effivlm.report.verdict import verdict
from effivlm.report.write import write
from tests.outcomes import cell, quality, store

SCHEMAS = Path(effivlm.report.__file__).parent / "schema"
RIGHT = [1.0] * 6 + [0.0] * 2
SETTINGS = {
    ("fastv", "0.10"): ("visual tokens", None, 6),
    ("fastv", "64tok"): ("visual tokens", 63.5, 5),
    ("fastv", "192tok"): ("visual tokens", 191.0, 6),
    ("snapkv", "0.10"): ("prompt entries", None, 5),
    ("snapkv", "64tok"): ("prompt entries", 64.0, 6),
    ("wanda", "sparsity0.50"): ("weights", 0.5, 4),
    ("wanda", "2:4"): ("weights", 0.5, 3),
    ("gptq", "w4g128"): ("weight bits", 4.158, 6),
    ("gptq", "fp8"): ("weight bits", 8.01, 5),
}


def run() -> list[Outcome]:
    found = []
    for task in ("docvqa_micro", "chartqa_micro"):
        found.append(quality(cell(task=task), RIGHT))
        for (method, keep), (of, counted, right) in SETTINGS.items():
            asked = "" if counted is None else keep
            share = 0.1 if counted is None or keep.endswith("tok") else float(Budget.parse(keep))
            kept = Achieved(of, share, 500, 1000, share, asked=asked, counted=counted)
            scores = [1.0] * right + [0.0] * (8 - right)
            found.append(quality(cell(method, keep, task), scores, achieved=kept))
    return found


@pytest.fixture
def document(tmp_path: Path) -> dict[str, Any]:
    store(tmp_path, run())
    found = write(tmp_path)
    assert json.loads((tmp_path / "report.json").read_text()) == found
    return found


def test_a_document_with_all_kinds_follows_its_schema_and_so_do_its_lines(
    document: dict[str, Any], tmp_path: Path
) -> None:
    jsonschema.validate(document, json.loads((SCHEMAS / "report.schema.json").read_text()))
    checker = jsonschema.Draft202012Validator(json.loads((SCHEMAS / "outcome.schema.json").read_text()))
    for line in (tmp_path / "outcomes.jsonl").read_text().splitlines():
        assert [error.message for error in checker.iter_errors(json.loads(line))] == []
    keeps = {row["keep"] for row in document["cells"]}
    assert keeps == {1.0, 0.1, "64tok", "192tok", "sparsity0.50", "2:4", "w4g128", "fp8"}


def test_no_mean_is_over_two_settings_and_no_front_over_two_kinds(document: dict[str, Any]) -> None:
    for name in ("op", "og", "ol"):
        rows = document["summary"][name]
        settings = [(row["method"], row["keep"], row["set"], tuple(row["models"]), row.get("over")) for row in rows]
        assert len(settings) == len(set(settings))
    points = {(row["method"], row["keep"]): row for row in document["summary"]["pareto"]}
    assert {key: row["budget_of"] for key, row in points.items()} == {
        (method, Budget.parse(keep).stored): of + " by number" * keep.endswith("tok")
        for (method, keep), (of, _, _) in SETTINGS.items()
    }
    assert "keep" in points["fastv", "64tok"]["front"], "the fraction 0.1 is no smaller budget than 64 tokens"
    assert (
        "keep" in points["gptq", "fp8"]["front"] or points["gptq", "w4g128"]["value"] >= points["gptq", "fp8"]["value"]
    )
    assert points["gptq", "w4g128"]["costs"]["keep"] == pytest.approx(4.15625)
    assert points["fastv", "192tok"]["costs"]["keep"] == 192


def test_the_terminal_shows_every_budget_as_it_was_asked_under_the_head_of_its_kind(document: dict[str, Any]) -> None:
    lines = table(document).split("methods of the checkpoint")[0].splitlines()
    heads = [line for line in lines if line.endswith(":") and ", of " in line]
    assert heads[:6] == [
        "keep, of visual tokens:",
        "keep, of visual tokens by number:",
        "keep, of prompt entries:",
        "keep, of prompt entries by number:",
        "setting, of weight bits:",
        "setting, of weights:",
    ]
    for (method, keep), (_, counted, _) in SETTINGS.items():
        shown = keep if keep != "0.10" else "0.1"
        rows = [line for line in lines if line.split()[:2] == [method, shown]]
        assert len(rows) == 3, (method, keep, "two tasks and OP over both")
        if counted is not None:
            assert rows[0].split()[-1] == f"/{counted:.3f}"  # what was asked stands in front


def test_the_page_gets_a_place_on_an_axis_for_every_budget_and_apart_from_other_kinds(document: dict[str, Any]) -> None:
    found = payload(document)
    by_setting = {(method, keep): place for place, (method, _, keep) in enumerate(found["settings"])}
    kinds = {
        setting: found["kinds"][found["ofs"][place]]
        for setting, place in by_setting.items()
        if found["ofs"][place] is not None
    }
    assert kinds["fastv", 0.1] == "visual tokens"
    assert kinds["fastv", "64tok"] == "visual tokens by number"
    assert kinds["wanda", "2:4"] == kinds["wanda", "sparsity0.50"] == "weights"
    sizes = {setting: found["sizes"][place] for setting, place in by_setting.items()}
    assert (sizes["fastv", "64tok"], sizes["wanda", "2:4"], sizes["gptq", "fp8"]) == (64, 0.5, 8)
    ranks = [found["ranks"][by_setting[one]] for one in (("fastv", 0.1), ("fastv", "64tok"), ("fastv", "192tok"))]
    assert ranks == sorted(set(ranks))
    assert json.loads(embed(found)) == found


def test_the_gate_compares_every_kind_with_itself_and_tells_what_changed(tmp_path: Path) -> None:
    store(tmp_path, run())
    write(tmp_path)
    path = tmp_path / "baseline.json"
    write_baseline(path, load(tmp_path))
    jsonschema.validate(json.loads(path.read_text()), json.loads((SCHEMAS / "baseline.schema.json").read_text()))
    found = verdict(load(path), load(tmp_path), Limits())
    assert found["status"] == "passed"
    names = {row["cell"] for row in found["rows"]}
    assert "micro_llava-wanda-2:4 over 2 tasks" in names
    assert "micro_llava-fastv-keep64tok over 2 tasks" in names
    assert "micro_llava-gptq-w4g128-docvqa_micro" in names
