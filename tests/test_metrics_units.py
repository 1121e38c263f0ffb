"""Samples that show the same pictures are drawn together, in every interval and in the gate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effivlm.metrics.units import units
from effivlm.records import Outcome
from effivlm.report import baseline
from effivlm.report.certificate import Claim, certify
from effivlm.report.drop import score_drop
from effivlm.report.quality import compare
from tests.outcomes import END, HEADER, cell, quality, store

NAMES = st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(["", "x", "y", "z"])), max_size=12)


def test_without_pictures_ids_tell_the_units() -> None:
    assert units(["a-0", "a-1", "b-0"], 2) == ["a", "a", "b"]
    assert units(["a-0", "a-1", "b-0"]) == ["a-0", "a-1", "b-0"]
    assert units(["a", "b"], 1, ["", ""]) == ["a", "b"]


def test_one_picture_joins_samples_of_several_groups() -> None:
    assert units(["b-0", "b-1", "a-0", "c-0"], 2, ["x", "y", "y", "z"]) == ["a", "a", "a", "c"]


def test_pictures_and_groups_join_in_turn() -> None:
    chain = units(["a-0", "a-1", "b-0", "b-1", "c-0"], 2, ["", "x", "x", "y", "y"])
    assert chain == ["a"] * 5


@given(NAMES, st.randoms())
def test_the_order_of_samples_decides_nothing(samples: list[tuple[str, str]], rng: object) -> None:
    samples = [(f"{name}-{number}", picture) for number, (name, picture) in enumerate(samples)]
    turned = list(samples)
    rng.shuffle(turned)  # type: ignore[attr-defined]
    found, again = (
        dict(zip([one for one, _ in side], units([one for one, _ in side], 2, [two for _, two in side]), strict=True))
        for side in (samples, turned)
    )
    assert found == again
    shown = [(picture, found[name]) for name, picture in samples if picture]
    assert all(one == two for first, one in shown for second, two in shown if first == second)


def shown(outcome: Outcome, pictures: list[str]) -> Outcome:
    answers = zip(outcome.answers, pictures, strict=True)
    return replace(outcome, answers=tuple(replace(answer, pictures=one) for answer, one in answers))


def pair(pictures: list[str]) -> list[Outcome]:
    dense = quality(cell(), [1.0] * 24)
    other = quality(cell("snapkv", "0.10"), [float(place // 4 % 2) for place in range(24)])
    return [shown(dense, pictures), shown(other, pictures)]


APART, SHARED = [f"p{place}" for place in range(24)], [f"p{place // 4}" for place in range(24)]


def test_an_interval_is_wider_where_questions_share_pictures() -> None:
    apart, shared = (compare(pair(one), pair(one)[0])[1] for one in (APART, SHARED))
    assert (apart.units, shared.units) == (24, 6)
    assert apart.interval is not None
    assert shared.interval is not None
    assert shared.interval[1] - shared.interval[0] > 1.5 * (apart.interval[1] - apart.interval[0])
    assert shared.paired is not None
    assert (shared.paired["better"], shared.paired["worse"]) == (0, 3)


def test_answers_of_before_pictures_were_told_are_units_of_their_own() -> None:
    assert compare(pair([""] * 24), pair([""] * 24)[0])[1].units == 24


def side(folder: Path, pictures: list[str]) -> baseline.Side:
    folder.mkdir()
    header = {**HEADER, "notes": [], "settings": {"limit": 24, "seed": 0, "dtype": "float32"}}
    store(folder, pair(pictures), header=header, end=END)
    return baseline.load(folder)


def test_a_certificate_counts_pictures_and_not_questions(tmp_path: Path) -> None:
    from effivlm.records import Budget

    claim = Claim("snapkv", "paper", Budget.parse("0.10"), 0.1)
    found = [certify(side(tmp_path / name, one), claim) for name, one in (("apart", APART), ("shared", SHARED))]
    assert [one["tasks"][0]["groups"] for one in found] == [24, 6]
    assert found[1]["tasks"][0]["upper"] > found[0]["tasks"][0]["upper"]


def test_a_baseline_keeps_which_samples_share_pictures(tmp_path: Path) -> None:
    whole = side(tmp_path / "run", SHARED)
    baseline.write_baseline(tmp_path / "base.json", whole)
    stored = baseline.load(tmp_path / "base.json")
    assert {name: one.units for name, one in stored.cells.items()} == {
        name: one.units for name, one in whole.cells.items()
    }
    assert any(one.units for one in stored.cells.values())


def test_a_baseline_without_shared_pictures_is_as_it_was(tmp_path: Path) -> None:
    for name, pictures in (("with", APART), ("without", [""] * 24)):
        baseline.write_baseline(tmp_path / f"{name}.json", side(tmp_path / name, pictures))
    assert (tmp_path / "with.json").read_text() == (tmp_path / "without.json").read_text()


@pytest.mark.parametrize("told", ["before", "after"])
def test_the_gate_draws_whole_pictures_whichever_side_knows_them(told: str, tmp_path: Path) -> None:
    knowing, blind = side(tmp_path / "knowing", SHARED), side(tmp_path / "blind", [""] * 24)
    name = next(one for one in knowing.cells if "snapkv" in one)
    dense = next(one for one in knowing.cells if "dense" in one)
    before, after = (knowing, blind) if told == "before" else (blind, knowing)
    found = score_drop(before.cells[dense], after.cells[name])
    plain = score_drop(blind.cells[dense], blind.cells[name])
    assert found is not None
    assert plain is not None
    assert found.interval is not None
    assert plain.interval is not None
    assert found.interval[1] - found.interval[0] > 1.5 * (plain.interval[1] - plain.interval[0])
