"""Timings: two rows a cell in pytest-benchmark, an outcome each, and never silently lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from toy_session import Toy

from effivlm.plugin.bench import pytest_benchmark_update_machine_info

TIMED = ("-k", "ttft or decode")


def timings(toy: Toy) -> dict[tuple[str, str, float], dict[str, Any]]:
    return {
        (one["cell"]["method"], one["part"], one["cell"]["keep"]): one
        for one in toy.records()
        if one["kind"] == "outcome" and one["part"] != "quality"
    }


def test_every_cell_is_two_rows_that_show_the_rounds_on_record(toy: Toy) -> None:
    result = toy.run(*TIMED, "--benchmark-json=rows.json")
    result.assert_outcomes(passed=10, deselected=5)
    rows = {
        row["fullname"].split("::")[1]: row for row in json.loads((toy.path / "rows.json").read_text())["benchmarks"]
    }
    assert len(rows) == 10
    cell = "[toy_a-fastv-keep0.10-docvqa_micro]"
    assert rows[f"test_ttft{cell}"]["stats"]["median"] == 0.25
    assert rows[f"test_decode{cell}"]["stats"]["median"] == pytest.approx(0.008)
    assert rows[f"test_decode{cell}"]["group"] == "decode toy_a docvqa_micro"
    assert timings(toy)["fastv", "ttft", 0.1]["costs"]["ttft_s"]["rounds"] == [0.25] * 6
    assert timings(toy)["fastv", "decode", 0.1]["costs"]["decode_ms_per_token"]["median"] == 8.0
    assert timings(toy)["fastv", "ttft", 0.1]["remarks"] == ["timed on CPU"]


def test_both_parts_of_a_cell_share_one_preparation(toy: Toy) -> None:
    toy.run("-k", "dense and (ttft or decode)")
    words = [line.split()[0] for line in (toy.path / "toy_log.txt").read_text().splitlines()]
    assert words == ["open", "prepare", *["ttft"] * 6, *["decode"] * 6, "close"]


def test_dense_is_timed_once_a_group_also_where_it_was_not_selected(toy: Toy) -> None:
    toy.run("-k", "ttft and (fastv or snapkv)")
    assert set(timings(toy)) == {
        ("dense", "ttft", 1.0), *((method, "ttft", keep) for method in ("fastv", "snapkv") for keep in (0.1, 0.4))
    }  # fmt: skip
    assert toy.log("prepare").count("toy_a-dense-keep1.00-docvqa_micro") == 1


def test_an_unsupported_cell_is_a_skip_and_an_outcome(toy: Toy) -> None:
    toy.wish(unsupported=["snapkv"])
    result = toy.run(*TIMED)
    result.assert_outcomes(passed=6, skipped=4, deselected=5)
    assert timings(toy)["snapkv", "decode", 0.4]["reason"] == "snapkv cannot do this"


@pytest.mark.parametrize("arguments", [["--benchmark-disable"], ["-p", "no:benchmark"]], ids=" ".join)
def test_without_pytest_benchmark_the_rounds_are_measured_and_the_summary_says_where_they_are(
    toy: Toy, arguments: list[str]
) -> None:
    result = toy.run(*TIMED, *arguments)
    result.assert_outcomes(passed=10, deselected=5)
    outcome = timings(toy)["fastv", "ttft", 0.1]
    assert outcome["costs"]["ttft_s"]["rounds"] == [0.25] * 6
    assert any("not in pytest-benchmark's table" in remark for remark in outcome["remarks"])
    result.stdout.fnmatch_lines(["10 timings stand in report.json and not in pytest-benchmark's table*"])


@pytest.mark.parametrize(("argument", "missing"), [("--benchmark-skip", 10), ("--benchmark-only", 5)])
def test_what_pytest_benchmark_skips_is_said_and_does_not_count_as_interrupted(
    toy: Toy, argument: str, missing: int
) -> None:
    result = toy.run(argument)
    result.assert_outcomes(passed=15 - missing, skipped=missing)
    result.stdout.fnmatch_lines([f"not measured: {missing} cases (*{argument} *)"])
    end = toy.records()[-1]
    assert (end["status"], end["passed_over"], end["not_run"]) == ("finished", missing, 0)


def test_a_resumed_timing_fills_its_row_from_the_record(toy: Toy) -> None:
    toy.run(*TIMED)
    toy.forget()
    result = toy.run(*TIMED, "--vlm-resume=out", "--benchmark-json=rows.json")
    result.assert_outcomes(passed=10, deselected=5)
    assert not (toy.path / "toy_log.txt").exists()
    rows = json.loads((toy.path / "rows.json").read_text())["benchmarks"]
    assert {row["stats"]["rounds"] for row in rows} == {6}
    assert {row["extra_info"]["measured"] for row in rows} == {"in the run that was resumed"}


def properties(path: Path) -> dict[str, dict[str, float]]:
    """Properties of each case of a JUnit file, by its name."""
    return {
        str(case.get("name")): {str(one.get("name")): float(str(one.get("value"))) for one in case.iter("property")}
        for case in ElementTree.parse(path).iter("testcase")
    }


def test_score_op_and_kept_share_stand_in_junit_and_in_the_extra_info_of_rows(toy: Toy) -> None:
    toy.run("--junitxml=junit.xml", "--benchmark-json=rows.json")
    found = properties(toy.path / "junit.xml")
    (one,) = [
        cell for cell in toy.report()["cells"] if (cell["method"], cell["keep"], cell["n"] > 0) == ("fastv", 0.1, True)
    ]
    expected = {
        "score_fraction": one["score"],
        "op_ratio": one["ratio"],
        "kept_fraction": one["achieved"]["keep"],
    }
    assert {name: value for name, value in expected.items() if value is None} == {}
    for part in ("quality", "ttft", "decode"):
        assert found[f"test_{part}[toy_a-fastv-keep0.10-docvqa_micro]"] == pytest.approx(expected)
    rows = json.loads((toy.path / "rows.json").read_text())["benchmarks"]
    (row,) = [row for row in rows if row["name"] == "test_ttft[toy_a-fastv-keep0.10-docvqa_micro]"]
    assert {name: row["extra_info"][name] for name in expected} == pytest.approx(expected)


def test_a_timing_without_a_quality_case_beside_it_claims_no_score(toy: Toy) -> None:
    toy.run("-k", "ttft and fastv", "--junitxml=junit.xml")
    found = properties(toy.path / "junit.xml")
    assert len(found) == 2
    assert all({"score_fraction", "op_ratio"}.isdisjoint(one) for one in found.values())


def test_machine_info_names_the_gpus() -> None:
    info: dict[str, Any] = {}
    pytest_benchmark_update_machine_info(info)
    assert isinstance(info["gpus"], list)
