"""What may not change a document, and what a document is where there is little or nothing to report."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effivlm.records import Outcome, dump
from effivlm.report.document import build, read
from tests.outcomes import END, HEADER, cell, missing, quality, small_run, store, timed
from tests.test_report_document import schema

SETTINGS = (("dense", "1.00"), ("fastv", "0.10"), ("snapkv", "0.10"))
score = st.sampled_from([0.0, 0.4, 1.0, 1.0, None])


@st.composite
def runs(draw: st.DrawFn) -> list[Outcome]:
    """Two tasks, three settings, one to five samples; some samples broke."""
    n = draw(st.integers(1, 5))
    found = []
    for task in "ab":
        for method, keep in SETTINGS:
            scores = draw(st.lists(score, min_size=n, max_size=n).filter(any))
            same = None if method == "dense" else draw(st.lists(st.booleans(), min_size=n, max_size=n))
            found.append(quality(cell(method, keep, task), scores, same))
    return found


def document(outcomes: list[Outcome], end: dict[str, Any] | None = END) -> dict[str, Any]:
    return build({**HEADER, "notes": []}, outcomes, end)


def assert_equal(found: Any, expected: Any, but: frozenset[str] = frozenset(), path: str = "") -> None:
    """Equal in structure, and in numbers up to their rounding; keys in `but` are not compared."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), path
        for key in expected.keys() - but:
            assert_equal(found[key], expected[key], but, f"{path}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), path
        for place, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_equal(one, other, but, f"{path}[{place}]")
    else:
        assert found == (pytest.approx(expected, abs=1e-9) if isinstance(expected, float) else expected), path


def changed(outcomes: list[Outcome], change: Callable[[Outcome], Any]) -> list[Outcome]:
    return [replace(one, answers=tuple(change(one))) for one in outcomes]


@settings(max_examples=12, deadline=None)
@given(runs(), st.randoms())
def test_the_order_of_samples_changes_nothing(outcomes: list[Outcome], rng: random.Random) -> None:
    shuffled = changed(outcomes, lambda one: rng.sample(one.answers, len(one.answers)))
    assert_equal(document(shuffled), document(outcomes))


@settings(max_examples=12, deadline=None)
@given(runs())
def test_every_sample_twice_leaves_all_points_and_doubles_the_counts(outcomes: list[Outcome]) -> None:
    twice = changed(outcomes, lambda one: [*one.answers, *(replace(a, id=f"{a.id} again") for a in one.answers)])
    once, doubled = document(outcomes), document(twice)
    apart = frozenset({"interval", "ratio_interval", "paired", "n", "units", "flips", "remarks"})
    assert_equal(doubled["cells"], once["cells"], apart)
    assert_equal(doubled["summary"], once["summary"], frozenset({"interval", "detectable"}))
    for one, two in zip(once["cells"], doubled["cells"], strict=True):
        if one["loyalty"] and one["loyalty"]["flips"]:
            assert two["loyalty"]["flips"] == {name: 2 * count for name, count in one["loyalty"]["flips"].items()}
        if one["paired"] and one["paired"]["interval"]:
            assert two["paired"]["n"] == 2 * one["paired"]["n"]


@settings(max_examples=12, deadline=None)
@given(runs(), st.floats(0.05, 1.0))
def test_scaling_all_scores_of_a_task_leaves_its_ratios(outcomes: list[Outcome], factor: float) -> None:
    def scaled(one: Outcome) -> Outcome:
        answers = (replace(a, score=None if a.score is None else a.score * factor) for a in one.answers)
        return replace(one, score=(one.score or 0.0) * factor, answers=tuple(answers))

    found = document([scaled(one) if one.cell.task == "a" else one for one in outcomes])
    expected = document(outcomes)
    alike = in_step(outcomes)
    for one, other in zip(found["cells"], expected["cells"], strict=True):
        assert_equal(one["ratio"], other["ratio"])
        if one["id"] not in alike:
            assert_equal(one["ratio_interval"], other["ratio_interval"])
    assert_equal(found["summary"], expected["summary"])


def in_step(outcomes: list[Outcome]) -> set[str]:
    """Cells that differ from dense by the same on every sample, or have no score but 0: how far they may be apart is told by the
    range of scores, which is not scaled with them."""
    dense = {one.cell.task: one for one in outcomes if one.cell.method == "dense"}
    pairs = {
        one.cell.id: [
            (a.score, b.score)
            for a, b in zip(one.answers, dense[one.cell.task].answers, strict=True)
            if a.score is not None and b.score is not None
        ]
        for one in outcomes
    }
    return {
        name
        for name, found in pairs.items()
        if len({round(own - other, 9) for own, other in found}) <= 1 or not any(own for own, _ in found)
    }


def test_two_settings_that_are_equal_up_to_rounding_stand_on_the_front_as_one() -> None:
    scores = {"dense": (0.4, 0.4), "fastv": (1.0, 0.4), "dart": (0.4, 1.0)}
    keeps = {"dense": "1.00", "fastv": "0.10", "dart": "0.10"}

    def run(factor: float) -> list[Any]:
        made = [
            quality(cell(method, keeps[method], task), [score * (factor if task == "a" else 1.0)])
            for at, task in enumerate("ab")
            for method, score in ((method, both[at]) for method, both in scores.items())
        ]
        return [point["front"] for point in document(made)["summary"]["pareto"]]

    assert run(0.0546875) == run(1.0)
    assert sum("keep" in front for front in run(1.0)) == 1


@settings(max_examples=12, deadline=None)
@given(runs())
def test_a_document_is_json_without_nan_and_reads_back_equal(outcomes: list[Outcome]) -> None:
    found = document(outcomes)
    assert json.loads(dump(found)) == found
    jsonschema.validate(found, schema("report"))


FASTV = cell("fastv", "0.10")
LITTLE: dict[str, list[Outcome]] = {
    "nothing": [],
    "all failed": [missing(cell()), missing(FASTV)],
    "all unsupported": [missing(FASTV, "unsupported", "too few layers")],
    "dense alone": [quality(cell(), [1.0, 0.0])],
    "dense failed": [missing(cell()), quality(FASTV, [1.0, 0.0], [True, False])],
    "dense without answers": [quality(cell(), [], score=0.5), quality(FASTV, [], score=0.25)],
    "dense scored zero": [quality(cell(), [0.0, 0.0]), quality(FASTV, [1.0, 0.0], [True, False])],
    "all scored zero": [quality(cell(), [0.0, 0.0]), quality(FASTV, [0.0, 0.0], [True, True])],
    "one sample": [quality(cell(), [1.0]), quality(FASTV, [0.0], [False])],
    "one sample broke": [quality(cell(), [1.0, 0.0]), quality(FASTV, [None, 0.0], [False, True])],
    "no common sample": [quality(cell(), [1.0, None]), quality(FASTV, [None, 1.0])],
    "times alone": [timed(cell(), "ttft", 0.2), timed(FASTV, "ttft", 0.1)],
    "time of zero": [timed(cell(), "ttft", 0.0), timed(FASTV, "ttft", 0.0)],
    "everything": small_run(),
}


@pytest.mark.parametrize("name", LITTLE)
@pytest.mark.parametrize("end", [END, None])
def test_little_or_nothing_measured_gives_a_document_of_the_same_shape(name: str, end: dict[str, Any] | None) -> None:
    found = document(LITTLE[name], end)
    jsonschema.validate(found, schema("report"))
    assert not [number for number in numbers(found) if not math.isfinite(number)]
    assert found["run"]["status"] == ("interrupted" if end is None else "finished")
    assert len(found["cells"]) + len(found["failed"]) + len(found["skipped"]) == len({one.cell for one in LITTLE[name]})


def numbers(found: Any) -> Iterator[float]:
    if isinstance(found, float):
        yield found
    elif isinstance(found, dict | list):
        for one in found.values() if isinstance(found, dict) else found:
            yield from numbers(one)


@pytest.mark.parametrize("name", ["all failed", "dense failed", "dense scored zero", "all scored zero", "times alone"])
def test_without_a_ratio_there_is_no_op_and_no_og_and_never_a_zero(name: str) -> None:
    found = document(LITTLE[name])
    assert found["summary"]["op"] == found["summary"]["og"] == found["summary"]["pareto"] == []
    assert {one["ratio"] for one in found["cells"]} <= {None}


def test_one_sample_has_points_and_no_intervals() -> None:
    found = document(LITTLE["one sample"])
    (op,), (ol,) = found["summary"]["op"], found["summary"]["ol"]
    assert (op["value"], op["interval"], ol["value"], ol["interval"]) == (0.0, None, 0.0, None)


def test_answers_without_a_common_sample_have_no_paired_ratio() -> None:
    one = next(one for one in document(LITTLE["no common sample"])["cells"] if one["method"] == "fastv")
    assert (one["ratio"], one["paired"]) == (None, None)


def test_two_schema_versions_in_one_file_are_refused_by_line(tmp_path: Path) -> None:
    path = store(tmp_path, small_run())
    path.write_text(path.read_text(encoding="utf-8") + dump({**HEADER, "schema": 2}) + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"line \d+ has schema 2; this version of effivlm reads schema 1"):
        read(path)
