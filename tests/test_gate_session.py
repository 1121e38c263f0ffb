"""The gate in a real session of the toy world: options, exit codes, what is written, and what was not selected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import validate
from toy_session import ROOT, Toy

QUALITY = ("-k", "quality")
SCHEMAS = ROOT / "effivlm" / "report" / "schema"
PLANTED = """
from dataclasses import replace

_honest = toy_world._outcome

def _planted(cell, settings):
    outcome = _honest(cell, settings)
    if cell.method in toy_world.wish("silently_dense", []):
        outcome = replace(outcome, achieved=replace(outcome.achieved, kept=100, keep=1.0))
    lost = toy_world.wish("lost", {}).get(cell.method, 0.0)
    answers = tuple(replace(answer, score=answer.score - lost) for answer in outcome.answers)
    return replace(outcome, answers=answers, score=0.5 - lost)

toy_world._outcome = _planted
"""


def verdict(toy: Toy, run: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((toy.path / run / "verdict.json").read_text())
    validate(found, json.loads((SCHEMAS / "verdict.schema.json").read_text()))
    return found


def bad(toy: Toy, run: str) -> set[tuple[str, str]]:
    return {(row["cell"], row["check"]) for row in verdict(toy, run)["rows"] if row["status"] == "fail"}


@pytest.fixture
def base(toy: Toy) -> Toy:
    """A toy world in which a baseline of all parts stands in base.json."""
    toy.add(PLANTED)
    toy.wish()
    toy.limit = 3  # of two samples that both fell nothing can be told
    result = toy.run("--vlm-update-baseline=base.json", run="first")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["baseline of 5 cells: *base.json"])
    return toy


def test_a_run_equal_to_its_baseline_passes_and_leaves_a_verdict(base: Toy) -> None:
    stored = json.loads((base.path / "base.json").read_text())
    validate(stored, json.loads((SCHEMAS / "baseline.schema.json").read_text()))
    assert stored["run"]["task_versions"] == {"docvqa_micro": 1}
    result = base.run("--vlm-baseline=base.json", run="second")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["outcomes.jsonl: *", "gate passed: *", "verdict.html: *second/verdict.html"])
    found = verdict(base, "second")  # score, kept fraction, ttft and decode of 5 cells
    assert (found["counts"]["ok"], found["compared"]) == (20, 20)


def test_a_method_that_silently_runs_dense_fails_a_session_whose_tests_pass(base: Toy) -> None:
    base.wish(silently_dense=["fastv"])
    result = base.run(*QUALITY, "--vlm-baseline=base.json", run="second")
    result.assert_outcomes(passed=5, deselected=10)
    assert result.ret == 1
    assert bad(base, "second") == {
        ("toy_a-fastv-keep0.10-docvqa_micro", "kept"),
        ("toy_a-fastv-keep0.40-docvqa_micro", "kept"),
    }
    result.stdout.fnmatch_lines(["FAIL: toy_a-fastv-keep0.10-docvqa_micro: kept fraction of entries 0.1 -> 1*"])


def test_a_lost_score_fails_and_its_tolerance_lets_it_pass(base: Toy) -> None:
    base.wish(lost={"snapkv": 0.02})
    assert base.run(*QUALITY, "--vlm-baseline=base.json", run="second").ret == 1
    assert {check for _, check in bad(base, "second")} == {"score"}
    allowed = ("--vlm-tolerance=snapkv.score=0.03", "--vlm-tolerance", "decode=1.5,ttft=1.2")
    assert base.run(*QUALITY, "--vlm-baseline=base.json", *allowed, run="third").ret == 0


def test_what_a_session_did_not_select_is_not_missing_unless_asked_for(base: Toy) -> None:
    result = base.run("-k", "quality and fastv", "--vlm-baseline=base.json", run="second")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["note: 12 measurements were not selected*a full run checks all"])
    strict = ("-k", "quality and fastv", "--vlm-baseline=base.json", "--vlm-missing=fail")
    assert base.run(*strict, run="third").ret == 1
    assert sum(check == "missing" for _, check in bad(base, "third")) == 5


def test_a_case_that_left_the_matrix_is_missing_in_a_full_run(base: Toy) -> None:
    smaller = ("--vlm-methods=dense,fastv", "--vlm-baseline=base.json")
    result = base.run(*smaller, run="second")
    assert result.ret == 1
    gone = {("toy_a-snapkv-keep0.10-docvqa_micro", "missing"), ("toy_a-snapkv-keep0.40-docvqa_micro", "missing")}
    assert bad(base, "second") == gone
    assert base.run(*smaller, "--vlm-missing=warn", run="third").ret == 0


def test_a_new_case_warns_and_fails_where_that_is_asked_for(base: Toy) -> None:
    more = ("--vlm-tasks=docvqa_micro,count_micro", *QUALITY, "--vlm-baseline=base.json")
    result = base.run(*more, run="second")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["warn: toy_a-dense-keep1.00-count_micro: quality is new*"])
    assert base.run(*more, "--vlm-new=fail", run="third").ret == 1


def test_other_samples_are_refused_with_what_to_do(base: Toy) -> None:
    result = base.run(*QUALITY, "--vlm-baseline=base.json", "--vlm-limit=4", run="second")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["REFUSED: task docvqa_micro has other samples*--vlm-limit 3 --vlm-seed 0*"])
    assert verdict(base, "second")["status"] == "refused"


def test_a_failed_cell_is_a_missing_measurement_with_its_reason(base: Toy) -> None:
    base.wish(failing=["toy_a-fastv-keep0.10-docvqa_micro"])
    result = base.run(*QUALITY, "--vlm-baseline=base.json", run="second")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["FAIL: *fastv-keep0.10*: quality is missing: failed: every sample broke"])


@pytest.mark.parametrize("wish", [{"failing": ["toy_a-fastv-keep0.10-docvqa_micro"]}, {"lost": {"fastv": 0.3}}])
def test_no_baseline_is_written_of_a_run_that_failed_or_got_worse(base: Toy, wish: dict[str, Any]) -> None:
    base.wish(**wish)
    both = ("--vlm-baseline=base.json", "--vlm-update-baseline=new.json")
    result = base.run(*QUALITY, *both, run="second")
    assert result.ret == 1
    assert not (base.path / "new.json").exists()
    result.stdout.fnmatch_lines(["no baseline was written: *"])


def test_two_workers_give_the_same_verdict(base: Toy) -> None:
    base.wish(silently_dense=["fastv"])
    result = base.run_apart("-n", "2", "-p", "xdist", *QUALITY, "--vlm-baseline=base.json", run="second")
    assert result.ret == 1
    assert {check for _, check in bad(base, "second")} == {"kept"}
    assert "not selected" in " ".join(verdict(base, "second")["notes"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--vlm-baseline=nowhere.json"], "*--vlm-baseline: *nowhere.json is no run folder*"),
        (["--vlm-baseline=broken.json"], "*--vlm-baseline: *broken.json is not JSON*"),
        (["--vlm-tolerance=score=0.1"], "*need --vlm-baseline FILE*"),
        (["--vlm-new=fail"], "*need --vlm-baseline FILE*"),
        (["--vlm-baseline=base.json", "--vlm-tolerance=speed=2"], "*'speed' is not one of score, kept, ttft*"),
        (["--vlm-baseline=base.json", "--vlm-tolerance=nobody.score=0.1"], "*'nobody' is no task, model or method*"),
        (["--vlm-baseline=base.json", "--vlm-missing=maybe"], "*--vlm-missing: 'maybe' is not one of fail, warn, ok*"),
        (["--vlm-update-baseline=bench_tests"], "*--vlm-update-baseline: *bench_tests cannot be a file*"),
    ],
)
def test_a_wrong_option_of_the_gate_is_refused_before_anything_runs(
    base: Toy, arguments: list[str], message: str
) -> None:
    (base.path / "broken.json").write_text("{")
    base.forget()
    result = base.run(*arguments, run="second")
    assert result.ret == 4
    result.stderr.fnmatch_lines([message])
    assert not base.log("open")
    assert not Path(base.path / "second").exists()
