"""From outcomes.jsonl to the document."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import effivlm.report
from effivlm.records import dump
from effivlm.report.document import build, read
from effivlm.report.write import write
from tests.outcomes import END, HEADER, answer, cell, lines, missing, quality, small_run, store, timed

SCHEMAS = Path(effivlm.report.__file__).parent / "schema"
hostile = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def document(outcomes: list[Any], end: dict[str, Any] | None = END) -> dict[str, Any]:
    return build(HEADER, outcomes, end)


def only(found: dict[str, Any], **facts: Any) -> dict[str, Any]:
    """The one cell with these facts."""
    (one,) = [row for row in found["cells"] if all(row[key] == value for key, value in facts.items())]
    return one


def schema(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8"))
    return found


def test_the_document_of_a_run_follows_its_schema_and_equals_its_own_file(tmp_path: Path) -> None:
    broken = quality(cell("h2o", "0.10"), [1.0, None, 1.0], [True, False, True])
    random_weights = replace(quality(cell(task="gqa_micro"), [1.0, 0.0]), weights="random")
    store(tmp_path, [*small_run(), broken, random_weights])
    found = write(tmp_path)
    jsonschema.validate(found, schema("report"))
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8")) == found
    assert all(found["summary"][name] for name in ("op", "og", "ol", "oe", "pareto"))


def test_every_line_of_a_run_follows_the_outcome_schema_and_a_changed_one_does_not() -> None:
    sample = {"kind": "sample", "task": "t", "id": "s0", "prompt": "?", "references": ["a"], "thumbnail": None}
    records = [*map(json.loads, lines(small_run()).splitlines()), sample]
    checker = jsonschema.Draft202012Validator(schema("outcome"))
    assert [error.message for record in records for error in checker.iter_errors(record)] == []
    assert not checker.is_valid({**records[1], "score": 1.2})
    assert not checker.is_valid({**records[1], "surprise": 1})


@settings(max_examples=25)
@given(hostile, st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=1, max_size=5))
def test_outcomes_read_back_equal_whatever_the_answers_hold(
    tmp_path_factory: pytest.TempPathFactory, text: str, scores: list[float | None]
) -> None:
    outcome = quality(cell(), scores)
    outcome = replace(outcome, answers=tuple(replace(one, text=text) for one in outcome.answers), reason=text)
    path = store(tmp_path_factory.getbasetemp(), [outcome])
    assert read(path) == ({**HEADER, "notes": []}, [outcome], END)


def test_a_cut_last_line_is_left_out_and_noted_and_the_run_counts_as_interrupted(tmp_path: Path) -> None:
    path = store(tmp_path, small_run(), end=None)
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole + whole.splitlines()[1][:80], encoding="utf-8")
    header, outcomes, end = read(path)
    assert outcomes == small_run()
    assert header["notes"] == [f"line {len(whole.splitlines()) + 1} is cut or damaged and was left out"]
    assert build(header, outcomes, end)["run"]["status"] == "interrupted"


def test_a_line_that_holds_nan_is_left_out_and_noted(tmp_path: Path) -> None:
    path = store(tmp_path, small_run()[:2], end=None)
    text = path.read_text(encoding="utf-8")
    path.write_text(text + text.splitlines()[1].replace('"score":1', '"score":NaN') + "\n", encoding="utf-8")
    header, outcomes, _ = read(path)
    assert outcomes == small_run()[:2]
    assert header["notes"] == ["line 4 is cut or damaged and was left out"]


def test_a_line_cut_inside_a_character_is_left_out(tmp_path: Path) -> None:
    path = store(tmp_path, small_run()[:1], end=None)
    path.write_bytes(path.read_bytes() + '{"kind":"é'.encode()[:-1])
    assert len(read(path)[1]) == 1


def test_an_end_line_of_an_earlier_session_does_not_end_a_resumed_run(tmp_path: Path) -> None:
    first, second = small_run()[:2], small_run()[2:4]
    text = lines(first, end={"kind": "end", "status": "interrupted"}) + lines(second, end=None)
    path = tmp_path / "outcomes.jsonl"
    path.write_text(text, encoding="utf-8")
    header, outcomes, end = read(path)
    assert (len(outcomes), end) == (4, None)
    path.write_text(text + dump(END) + "\n", encoding="utf-8")
    assert build(*read(path))["run"]["status"] == "finished"
    assert header["started"] == HEADER["started"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no run header"),
        (lines([], header={**HEADER, "schema": 2}), "schema 2; this version of effivlm reads schema 1"),
        (lines([]).split("\n", 1)[1], "does not begin with a run header"),
        (dump(HEADER) + '\n{"kind":"outcome","cell":{}}\n', "line 2 is no outcome of schema 1"),
    ],
)
def test_a_file_that_is_no_run_of_schema_1_is_refused_in_words(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "outcomes.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        build(*read(path))


def test_parts_of_one_cell_become_one_cell_and_the_last_outcome_of_a_part_wins() -> None:
    which = cell("fastv", "0.10")
    early = quality(which, [0.0, 0.0])
    found = document([early, timed(which, "ttft", 0.5), timed(which, "decode", 3.0), quality(which, [1.0, 1.0])])
    (one,) = found["cells"]
    assert one["score"] == 1.0
    assert set(one["costs"]) == {"ttft_s", "decode_ms_per_token"}
    assert set(one["fingerprints"]) == {"quality", "ttft", "decode"}


def test_a_later_success_replaces_a_failure() -> None:
    found = document([missing(cell()), quality(cell(), [1.0])])
    assert (len(found["cells"]), found["failed"]) == (1, [])


def test_skips_and_failures_stand_apart_with_part_and_reason() -> None:
    found = document(small_run())
    assert [(one["method"], one["reason"]) for one in found["skipped"]] == [
        ("pyramid_drop", "needs at least 8 layers, the model has 4")
    ]
    assert [(one["part"], one["status"]) for one in found["failed"]] == [("quality", "failed")]
    assert not {"pyramid_drop", "look_m"} & {one["method"] for one in found["cells"]}


def test_ratio_loyalty_and_speedups_are_against_dense_of_the_same_model_and_task() -> None:
    one = only(document(small_run()), method="fastv", keep=0.1, task="docvqa_micro")
    assert one["ratio"] == pytest.approx(5 / 7)
    assert (one["loyalty"]["same"], one["loyalty"]["n"]) == (5 / 8, 8)
    assert (one["paired"]["better"], one["paired"]["worse"], one["paired"]["n"]) == (1, 3, 8)
    assert one["speedups"]["ttft"] == {"value": 2.0, "interval": [2.0, 2.0]}
    assert one["speedups"]["decode"]["value"] == pytest.approx(4 / 3)


def test_a_dense_score_of_zero_leaves_the_ratio_undefined_and_counted() -> None:
    other = cell("fastv", "0.10")
    rest = [quality(replace(one, task="b"), [1.0, 1.0]) for one in (cell(), other)]
    found = document([quality(cell(), [0.0, 0.0]), quality(other, [1.0, 0.0]), *rest])
    assert only(found, method="fastv", task="docvqa_micro")["ratio"] is None
    assert [(row["n"], row["undefined"], row["tasks"]) for row in found["summary"]["op"]] == [(1, 1, ["b"])]


def test_without_dense_there_is_no_ratio_and_no_speedup() -> None:
    which = cell("fastv", "0.10")
    (one,) = document([quality(which, [1.0]), timed(which, "ttft", 0.1)])["cells"]
    assert one["ratio"] is None
    assert one["speedups"] == {"ttft": None, "decode": None, "batch": None}


def test_a_speedup_takes_the_fastest_dense_of_its_own_engine_and_says_when_there_is_none() -> None:
    graph, eager = cell("snapkv", "0.10"), cell("snapkv", "0.20")
    found = document(
        [
            timed(cell(), "decode", 4.0, engine="graph"),
            timed(cell(preset="slow"), "decode", 9.0, engine="graph"),
            timed(graph, "decode", 2.0, engine="graph"),
            timed(eager, "decode", 20.0, engine="eager"),
        ]
    )
    assert only(found, method="snapkv", keep=0.1)["speedups"]["decode"]["value"] == 2.0
    other = only(found, method="snapkv", keep=0.2)
    assert other["speedups"]["decode"] is None
    assert other["remarks"] == ["no dense decode_ms_per_token on engine eager, so no decode speed-up"]


def test_a_broken_sample_is_left_out_of_the_comparison_on_both_sides() -> None:
    which = cell("fastv", "0.10")
    found = document([quality(cell(), [1.0, 1.0, 0.0, 0.0]), quality(which, [None, 1.0, 0.0, 0.0])])
    one = only(found, method="fastv")
    assert (one["ratio"], one["broken"], one["paired"]["n"]) == (1.0, 1, 3)
    assert one["remarks"] == ["compared with dense on the 3 samples that both answered"]


def test_samples_that_broke_on_both_sides_need_no_remark() -> None:
    which = cell("fastv", "0.10")
    one = only(document([quality(cell(), [None, 1.0, 1.0]), quality(which, [None, 1.0, 0.0])]), method="fastv")
    assert (one["ratio"], one["paired"]["n"], one["remarks"]) == (0.5, 2, [])


def test_a_score_that_is_no_mean_of_its_samples_has_no_interval_and_says_so() -> None:
    (one,) = document([quality(cell(), [1.0, 0.0], score=0.9)])["cells"]
    assert (one["score"], one["interval"]) == (0.9, None)
    assert "no mean over samples" in one["remarks"][0]


def test_random_weights_give_times_but_neither_ratio_nor_loyalty() -> None:
    which = cell("fastv", "0.10")
    outcomes = [quality(cell(), [1.0, 1.0]), quality(which, [1.0, 0.0], [True, False])]
    times = [timed(cell(), "ttft", 0.2), timed(which, "ttft", 0.1)]
    found = document([replace(one, weights="random") for one in (*outcomes, *times)])
    one = only(found, method="fastv")
    assert (one["ratio"], one["loyalty"], one["speedups"]["ttft"]["value"]) == (None, None, 2.0)
    assert found["summary"]["op"] == found["summary"]["ol"] == []


def test_answers_in_another_order_are_paired_by_their_id() -> None:
    which = cell("fastv", "0.10")
    outcome = quality(which, [1.0, 0.0, 1.0], [True, True, True])
    turned = replace(outcome, answers=outcome.answers[::-1])
    dense = quality(cell(), [1.0, 0.0, 1.0])
    assert only(document([dense, turned]), method="fastv") == only(document([dense, outcome]), method="fastv")


@settings(max_examples=15, deadline=None)
@given(st.randoms())
def test_the_order_of_outcomes_changes_no_number(rng: random.Random) -> None:
    shuffled = small_run()
    rng.shuffle(shuffled)
    found, again = document(small_run()), document(shuffled)
    assert by_id(found["cells"]) == by_id(again["cells"])
    assert {dump(row) for row in map(settled, found["summary"]["op"])} == {
        dump(row) for row in map(settled, again["summary"]["op"])
    }


def by_id(cells: list[dict[str, Any]]) -> dict[str, Any]:
    return {one["id"]: {key: value for key, value in one.items() if key != "costs"} for one in cells}


def settled(row: dict[str, Any]) -> dict[str, Any]:
    """A summary row without what floating-point order may touch."""
    interval = row["interval"] and [round(end, 9) for end in row["interval"]]
    return {**row, "tasks": sorted(row["tasks"]), "interval": interval, "value": round(row["value"], 9), "mean": 0}


def test_one_answer_alone_gets_no_interval() -> None:
    (one,) = document([quality(cell(), [1.0])])["cells"]
    assert one["interval"] is None
    assert not any(isinstance(value, float) and math.isnan(value) for value in one.values())


def test_answers_that_are_scored_together_are_one_observation() -> None:
    rights = {"dense": [1.0, 1.0, 0.0, 1.0, None], "fastv": [1.0, 0.0, 0.0, None, 1.0]}

    def described(copies: int) -> dict[str, Any]:
        outcomes = [
            quality(cell(method), [one for one in scores for _ in range(copies)]) for method, scores in rights.items()
        ]
        named = [
            replace(
                one,
                group=copies,
                answers=tuple(replace(a, id=f"t-{i // copies}-{i % copies}") for i, a in enumerate(one.answers)),
            )
            for one in outcomes
        ]
        return only(build(HEADER, named, END), method="fastv")

    once, often = described(1), described(4)
    for word in ("score", "interval", "ratio", "ratio_interval"):
        assert often[word] == pytest.approx(once[word])
    for word in ("interval", "better", "worse", "p"):
        assert often["paired"][word] == pytest.approx(once["paired"][word])
    assert (often["paired"]["n"], once["paired"]["n"]) == (12, 3)


def test_broken_answers_are_counted_over_the_run() -> None:
    outcome = replace(quality(cell(), [1.0, None]), answers=(answer(0, 1.0), answer(1, None)))
    assert document([outcome])["run"]["counts"]["broken"] == 1
