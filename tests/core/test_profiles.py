"""What a run records of how answers were scored: the profile, answers that say nothing, and parts of the benchmark."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from toy_task import Toy

from effivlm.models._adapter import Adapter
from effivlm.models._sources import resolve
from effivlm.records import Answer, Cell, Outcome, Reported, Settings, dump
from effivlm.run.group import cell_fingerprint, run_group
from effivlm.run.scoring import NO_PROFILE
from effivlm.session import matrix
from effivlm.session.matrix import Asked

DENSE = Cell("twin", "dense", "paper", "1.00", "toy")
COMPAT = Settings(limit=2, scoring="compat")


class Halves(Toy):
    """A task that knows both profiles, and reports two parts."""

    profiles = ("fixed", "compat")

    def score(self, text: str, sample: Any) -> float:
        return 1.0 if self.profile == "compat" else 0.5

    def part(self, one: str) -> str:
        return f"half {one[-1]}"

    def parts(self, answers: Sequence[Answer]) -> dict[str, Reported]:
        return {one.part: Reported(one.score or 0.0, 10.0, 1, (one.part,)) for one in answers}


def ran(model: Adapter, settings: Settings) -> Outcome:
    (one,) = run_group([DENSE], model, settings)
    assert Outcome.from_json(json.loads(dump(one.to_json()))) == one
    return one


def test_a_task_that_knows_one_profile_is_scored_by_it_and_says_so(model: Adapter, toy_task: Toy) -> None:
    fixed, asked = ran(model, replace(COMPAT, scoring="fixed")), ran(model, COMPAT)
    assert (asked.profile, asked.score) == ("fixed", fixed.score)
    assert NO_PROFILE in asked.remarks
    assert NO_PROFILE not in fixed.remarks
    assert asked.fingerprint == fixed.fingerprint, "it is the same measurement"


def test_a_task_that_knows_the_paper_s_code_is_scored_by_it_and_named_so(
    model: Adapter, toy_task: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("effivlm.run.group.task_of", lambda name: Halves())
    fixed, asked = ran(model, replace(COMPAT, scoring="fixed")), ran(model, COMPAT)
    assert [(one.profile, one.score) for one in (fixed, asked)] == [("fixed", 0.5), ("compat", 1.0)]
    assert fixed.fingerprint != asked.fingerprint
    assert not {NO_PROFILE} & {*fixed.remarks, *asked.remarks}
    assert {one.part for one in asked.answers} == set(asked.parts)
    assert all(one == Reported(1.0, 10.0, 1, (name,)) for name, one in asked.parts.items())


def test_an_answer_that_says_nothing_is_recorded_as_invalid_and_one_that_broke_as_neither(
    model: Adapter, toy_task: Toy
) -> None:
    toy_task.invalid = lambda text, sample: sample.id.endswith("1")  # type: ignore[method-assign]
    right = toy_task.score

    def score(text: str, sample: Any) -> float:
        return right(text, sample) if not sample.id.endswith("2") else 1 / 0

    toy_task.score = score  # type: ignore[method-assign]
    one = ran(model, Settings(limit=3))
    assert [answer.invalid for answer in one.answers] == [False, True, None]


@pytest.mark.parametrize(("hook", "bad"), [("invalid", "yes"), ("part", 3)])
def test_what_an_author_gives_in_its_place_is_refused_by_name(
    hook: str, bad: Any, model: Adapter, toy_task: Toy
) -> None:
    setattr(toy_task, hook, lambda *_: bad)
    one = ran(model, Settings(limit=1))
    assert one.status == "failed"
    assert f"{hook}() gave {bad!r}" in one.reason


def test_a_part_whose_score_is_none_fails_its_cell_by_name(
    model: Adapter, toy_task: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy_task.parts = lambda answers: {"half": Reported(1.5, 1.0, 1)}  # type: ignore[method-assign]
    one = ran(model, Settings(limit=1))
    assert (one.status, "parts()['half'] gave 1.5" in one.reason) == ("failed", True)


def test_the_profile_is_an_option_and_part_of_what_decides_quality_alone() -> None:
    assert matrix.build(Asked()).settings.scoring == "fixed"
    assert matrix.build(Asked(scoring="compat")).settings.scoring == "compat"
    with pytest.raises(ValueError, match="--vlm-scoring: 'paper' is not one of fixed, compat"):
        matrix.build(Asked(scoring="paper"))
    source = resolve("micro_llava_onevision")
    asked = [replace(COMPAT, scoring=word) for word in ("fixed", "compat")]
    names = {
        (task, part): [cell_fingerprint(replace(DENSE, task=task), source, settings, part) for settings in asked]
        for task, part in (("gqa", "quality"), ("gqa", "ttft"), ("gqa_micro", "quality"), ("mmvet", "quality"))
    }
    assert {key for key, pair in names.items() if pair[0] != pair[1]} == {("gqa", "quality")}
