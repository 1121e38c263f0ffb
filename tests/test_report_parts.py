"""Invalid answers, parts of a benchmark, profiles of scorers, and intervals of scores that are no plain mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from effivlm.metrics.categories import mean_of_means
from effivlm.records import Outcome, Reported
from effivlm.report.baseline import load, of_run, write_baseline
from effivlm.report.document import build, read
from effivlm.report.export import tables
from effivlm.report.limits import Limits
from effivlm.report.payload import few_digits, payload
from effivlm.report.quality import NOT_A_MEAN, ONE_OF_A_PART
from effivlm.report.terminal import table
from effivlm.report.verdict import verdict
from tests.outcomes import END, HEADER, cell, quality, store
from tests.test_report_document import schema

FASTV, DENSE = cell("fastv", "0.10"), cell()


def built(*outcomes: Outcome) -> dict[str, Any]:
    found = build({**HEADER, "notes": []}, list(outcomes), END)
    jsonschema.validate(found, schema("report"))
    return found


def one(document: dict[str, Any], method: str) -> dict[str, Any]:
    (found,) = [each for each in document["cells"] if each["method"] == method]
    return found  # type: ignore[no-any-return]


def told(outcome: Outcome, invalid: Sequence[bool | None]) -> Outcome:
    pairs = zip(outcome.answers, invalid, strict=True)
    return replace(outcome, answers=tuple(replace(answer, invalid=flag) for answer, flag in pairs))


def by_part(outcome: Outcome, names: Sequence[str], **fields: Any) -> Outcome:
    """The outcome of a task whose score is the mean over parts."""
    answers = tuple(replace(answer, part=name) for answer, name in zip(outcome.answers, names, strict=True))
    known = [(answer.score, answer.part) for answer in answers if answer.score is not None]
    score = mean_of_means([value for value, _ in known], [name for _, name in known])
    parts = {name: _part(answers, name) for name in dict.fromkeys(names)}
    return replace(outcome, **{"answers": answers, "average": "parts", "score": score, "parts": parts, **fields})


def _part(answers: Sequence[Any], name: str) -> Reported:
    own = [answer.score for answer in answers if answer.part == name and answer.score is not None]
    return Reported(sum(own) / len(own) if own else 0.0, 200.0, len(own), (name,))


def test_invalid_answers_are_counted_by_cell_among_those_of_which_it_is_known() -> None:
    dense = told(quality(DENSE, [1, 1, 0, 1]), [False] * 4)
    found = built(dense, told(quality(FASTV, [1, 0, 0, None]), [False, True, True, None]))
    assert one(found, "dense")["invalid"] == {"count": 0, "n": 4, "rate": 0.0}
    assert one(found, "fastv")["invalid"] == {"count": 2, "n": 3, "rate": pytest.approx(2 / 3)}
    assert "invalid answers, which are wrong: fastv 0.1: 66.7%" in table(found)
    (head, *rows) = tables(found)["cells"]
    assert [row[head.index("invalid_count")] for row in rows] == [0, 2]
    assert payload(found)["cells"]["columns"]["invalid"] == pytest.approx([0.0, 2 / 3], abs=1e-6)


def test_a_block_without_an_invalid_answer_says_so_and_one_that_does_not_know_says_nothing() -> None:
    known = built(told(quality(DENSE, [1, 0]), [False, False]))
    assert "no answer is invalid" in table(known)
    unknown = built(quality(DENSE, [1, 0]))
    assert one(unknown, "dense")["invalid"] is None
    assert "invalid" not in table(unknown)


def test_many_cells_with_invalid_answers_are_named_the_worst_first_within_the_width() -> None:
    cells = [told(quality(DENSE, [1] * 20), [False] * 20)]
    cells += [
        told(quality(cell("fastv", f"0.{place:02d}"), [1] * 20), [True] * place + [False] * (20 - place))
        for place in range(1, 15)
    ]
    text = table(built(*cells))
    assert "fastv 0.14: 70.0%, fastv 0.13: 65.0%" in text
    assert "and 6 more" in text
    assert max(map(len, text.splitlines())) <= 100


NAMES = ["a"] * 12 + ["b"] * 3 + ["c"] * 6
OWN = [1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 1, 0, 0, 1, 0, 1, 0, 1, 1, 0, 1]
LESS = [1, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 1]


def test_a_mean_over_parts_has_its_interval_its_ratio_and_its_paired_difference() -> None:
    dense, less = by_part(quality(DENSE, OWN), NAMES), by_part(quality(FASTV, LESS), NAMES)
    found = built(dense, less)
    plain, own = one(found, "dense"), one(found, "fastv")
    assert plain["score"] == pytest.approx((9 / 12 + 1 / 3 + 4 / 6) / 3)
    low, high = plain["interval"]
    assert low < plain["score"] < high
    assert own["paired"]["difference"] == pytest.approx(own["score"] - plain["score"])
    assert own["paired"]["interval"][1] <= 0
    assert own["ratio_interval"][0] < own["ratio"] < own["ratio_interval"][1]
    assert NOT_A_MEAN not in plain["remarks"]
    assert plain["units"] == 9, "three parts, the smallest of three samples"


def test_parts_have_intervals_where_they_are_means_and_figures_have_none() -> None:
    dense = by_part(quality(DENSE, OWN), NAMES)
    dense = replace(dense, parts={**dense.parts, "F1": Reported(0.5, 100.0, 21), "odd": Reported(0.1, 1.0, 3, ("b",))})
    found = one(built(dense), "dense")["parts"]
    assert found["a"]["score"] == 0.75
    assert found["a"]["interval"][0] < 0.75 < found["a"]["interval"][1]
    assert found["F1"] == {"score": 0.5, "scale": 100.0, "n": 21, "interval": None}
    assert found["odd"]["interval"] is None, "it is not the mean of its samples"
    assert found["b"]["interval"] is None, "three samples tell nothing"
    assert "dense 1 by part: a 150.0, b 66.7, c 133.3, F1 50.0" in table(built(dense))
    columns = payload(built(dense))
    assert columns["figures"] == ["a", "b", "c", "F1", "odd"]
    assert columns["cells"]["columns"]["reported"]["all"][0][:2] == [0, 150.0]


def test_a_part_of_one_sample_takes_the_interval_and_says_why() -> None:
    found = one(built(by_part(quality(DENSE, OWN), ["a"] * 20 + ["b"])), "dense")
    assert found["interval"] is None
    assert ONE_OF_A_PART in found["remarks"]


def test_a_mean_over_groups_of_unequal_size_has_its_interval() -> None:
    ids = [f"{question}-{turn}" for question in range(8) for turn in range(2 + question % 3)]
    rights = [float(int(name.split("-")[0]) % 4 > 0) for name in ids]
    dense = quality(DENSE, rights)
    answers = tuple(replace(answer, id=name) for answer, name in zip(dense.answers, ids, strict=True))
    dense = replace(dense, answers=answers, group=2, average="groups", score=0.75)
    found = one(built(dense), "dense")
    assert found["interval"][0] < 0.75 < found["interval"][1]
    assert found["units"] == 8
    assert one(built(replace(dense, average="samples")), "dense")["remarks"] == [NOT_A_MEAN]


def test_cells_of_two_profiles_have_no_ratio_and_no_common_mean() -> None:
    dense = quality(DENSE, OWN)
    found = built(dense, replace(quality(FASTV, LESS), profile="compat"))
    own = one(found, "fastv")
    assert (own["profile"], own["ratio"], own["paired"]) == ("compat", None, None)
    assert "scored by the profile compat and dense by fixed, so there is no ratio" in own["remarks"]
    chart = "chartqa_micro"
    mixed = built(
        dense,
        quality(FASTV, LESS),
        replace(quality(cell(task=chart), OWN), profile="compat"),
        replace(quality(cell("fastv", "0.10", chart), LESS), profile="compat"),
    )
    assert any("scoring rule (docvqa_micro) and rule compat" in row["reason"] for row in mixed["summary"]["refused"])


def test_the_gate_weighs_parts_as_the_score_does_and_refuses_another_profile(tmp_path: Path) -> None:
    before, after = by_part(quality(DENSE, OWN), NAMES), by_part(quality(DENSE, LESS), NAMES)
    path = store(tmp_path, [before])
    header, outcomes, _ = read(path)
    write_baseline(tmp_path / "base.json", of_run(build(header, outcomes, END), outcomes, "before"))
    stored = load(tmp_path / "base.json")
    (measured,) = stored.cells.values()
    assert (measured.average, measured.places) == ("parts", tuple(NAMES))
    side = of_run(built(after), [after], "after")
    (row,) = [each for each in verdict(stored, side, Limits())["rows"] if each["check"] == "score"]
    assert row["change"] == pytest.approx((before.score or 0) - (after.score or 0))
    assert row["interval"][0] < row["change"] < row["interval"][1]
    other = replace(before, profile="compat")
    refused = verdict(stored, of_run(built(other), [other], "after"), Limits())
    assert (refused["status"], refused["rows"][0]["check"]) == ("refused", "profile")
    assert "run with --vlm-scoring fixed" in refused["rows"][0]["text"]


@given(st.floats(1e-4, 99.9), st.integers(0, 3), st.sampled_from([1, -1]))
@example(0.5085008856561019, 3, 1)
@example(0.816496580927726, 3, 1)
def test_a_number_of_the_page_is_rounded_as_the_terminal_rounds_it(value: float, places: int, sign: int) -> None:
    assert f"{few_digits(sign * value):.{places}f}" == f"{sign * value:.{places}f}"
    assert few_digits(value) == pytest.approx(value, rel=1e-5)
