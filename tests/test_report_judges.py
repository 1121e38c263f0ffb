"""What a report says of judges, and which differences are no larger than what a judge varies by."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from jsonschema import validate

from effivlm.records import Cell, Outcome
from effivlm.report import export, terminal
from effivlm.report.document import build
from tests.outcomes import END, HEADER, cell, quality

N = 50
TASK = "mmvet"
SCHEMA = Path(export.__file__).parent / "schema" / "report.schema.json"
RIGHT = {"dense": 40, "fastv": 39, "snapkv": 38, "h2o": 30, "tova": 41}
NOISE = {"dense": 0.02, "fastv": 0.01, "snapkv": 0.03, "h2o": 0.04, "tova": 0.0}


def told(spread: float | None, judge: str = "openai:gpt", alike: float | None = None, **facts: Any) -> dict[str, Any]:
    floor = None if spread is None else {"scores": [0.5, 0.5 + spread, 0.5], "spread": spread, "changed": 0.1, "n": 30}
    second = {"judge": "local:other", "same": alike, "difference": 0.05, "scores": [0.5, 0.5], "n": 49}
    agreement = None if alike is None else second
    known = {"judge": judge, "models": ["gpt-1"], "rubric": "mmvet", "prompt_sha256": "ab" * 32, "missing": 0}
    return {**known, "noise": floor, "agreement": agreement, **facts}


def marked(name: str, judged: dict[str, Any] | None, right: int | None = None, task: str = TASK) -> Outcome:
    keep = "1.00" if name == "dense" else "0.10"
    good = RIGHT[name] if right is None else right
    scores = [1.0] * good + [0.0] * (N - good)
    which = Cell(cell().model, name, "paper", keep, task)
    return quality(which, scores, scoring="judge", answer_type="free", judged=judged)


def run(**spreads: float | None) -> list[Outcome]:
    return [marked(name, told({**NOISE, **spreads}[name], alike=0.9 - 0.01 * at)) for at, name in enumerate(RIGHT)]


def document(outcomes: list[Outcome]) -> dict[str, Any]:
    found = build({**HEADER, "notes": []}, outcomes, END)
    validate(found, json.loads(SCHEMA.read_text()))
    return found


def test_cells_no_further_from_dense_than_the_judges_noise_are_named_and_remarked_on() -> None:
    found = document(run())
    (row,) = found["judges"]
    # apart by .02 and noise .02; by .04 and .03; by .20 and .04; by .02 and .02
    assert [one["method"] for one in row["within"]] == ["fastv", "tova"]
    assert [one["difference"] for one in row["within"]] == pytest.approx([-0.02, 0.02])
    for one in found["cells"]:
        close = [remark for remark in one["remarks"] if "within the judge's noise" in remark]
        assert len(close) == (one["method"] in ("fastv", "tova"))
    (remark,) = (
        text for one in found["cells"] for text in one["remarks"] if one["method"] == "fastv" and "noise" in text
    )
    assert "difference to dense of -2.00 lies within the judge's noise of 2.00" in remark


def test_pairs_of_cells_within_the_larger_of_their_noises_are_counted_one_by_one() -> None:
    (row,) = document(run())["judges"]
    close = [
        abs(RIGHT[one] - RIGHT[other]) / N <= max(NOISE[one], NOISE[other]) + 1e-9
        for one, other in combinations(RIGHT, 2)
    ]
    assert row["pairs"] == {"within": sum(close), "of": 10}


def test_the_largest_noise_the_least_agreement_and_all_missing_marks_are_told() -> None:
    outcomes = [marked(name, told(NOISE[name], alike=0.8 + at / 100, missing=at)) for at, name in enumerate(RIGHT)]
    (row,) = document(outcomes)["judges"]
    assert row["noise"] == {"spread": 0.04, "changed": 0.1, "n": 30, "repeats": 3}
    assert (row["agreement"]["judge"], row["agreement"]["same"]) == ("local:other", 0.8)
    assert (row["missing"], row["marks"], row["cells"]) == (10, 5 * N, 5)
    assert (row["judge"], row["models"], row["prompt_sha256"]) == ("openai:gpt", ["gpt-1"], "ab" * 32)


def test_noise_that_was_not_measured_makes_no_difference_small() -> None:
    (row,) = document(run(**dict.fromkeys(RIGHT, None)))["judges"]
    assert (row["noise"], row["pairs"], row["within"]) == (None, None, [])


def test_a_judge_that_always_says_the_same_makes_no_difference_small() -> None:
    found = document([marked("dense", told(0.0)), marked("fastv", told(0.0), right=RIGHT["dense"])])
    (row,) = found["judges"]
    assert (row["within"], row["pairs"]) == ([], {"within": 0, "of": 1})
    assert not any("within the judge's noise" in text for one in found["cells"] for text in one["remarks"])


def test_marks_of_two_judges_and_of_two_prompts_are_not_one_judges() -> None:
    outcomes = [marked("dense", told(0.5)), marked("fastv", told(0.5, judge="openai:other"))]
    outcomes.append(marked("snapkv", told(0.5, prompt_sha256="cd" * 32)))
    found = document(outcomes)
    assert [(row["judge"], row["cells"], row["within"]) for row in found["judges"]] == [
        ("openai:gpt", 1, []),
        ("openai:other", 1, []),
        ("openai:gpt", 1, []),
    ]
    assert not any("within the judge's noise" in text for one in found["cells"] for text in one["remarks"])


def test_a_run_without_judges_has_no_such_section() -> None:
    found = document([marked("dense", None), marked("fastv", None)])
    assert found["judges"] == []
    assert "judges" not in export.tables(found)


def test_tables_and_terminal_tell_the_same() -> None:
    found = document(run())
    head, row = export.tables(found)["judges"]
    one = dict(zip(head, row, strict=True))
    assert (one["noise_fraction"], one["pairs_within_noise_count"], one["same_mark_share"]) == (0.04, 3, 0.86)
    text = terminal.table(found)
    assert "marked by openai:gpt: its noise is up to 4.0" in text
    assert "no further from dense than its noise, which says nothing: 2 of 4 cells" in text
