"""Questions that are scored together: MME's pairs and MMBench's rotations."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effivlm.metrics.choice import letter, listed_options
from effivlm.metrics.circular import circular
from effivlm.metrics.mme import pair, yes_no
from effivlm.tasks._base import by_group

DATA = Path(__file__).parent / "data"
OPTIONS = {"A": "cat", "B": "dog", "C": "bird", "D": "fish"}
rights = st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=6)


def vectors(name: str) -> list[Any]:
    found: list[Any] = json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))["vectors"]
    return found


@pytest.mark.parametrize(("text", "expected", "note"), vectors("mme_parse"))
def test_yes_and_no_are_read_as_the_official_script_reads_them(text: str, expected: str, note: str) -> None:
    assert yes_no(text) == expected, note


@pytest.mark.parametrize(("text", "expected"), [("a no", "no"), ("so yes", "other"), ("", "other"), ("YES!", "yes")])
def test_only_the_first_four_characters_are_looked_into(text: str, expected: str) -> None:
    assert yes_no(text) == expected


@pytest.mark.parametrize(("rows", "expected", "note"), vectors("mme_aggregate"))
def test_pairs_add_up_to_the_official_score(rows: list[list[Any]], expected: float | None, note: str) -> None:
    categories = defaultdict(list)
    for place, (category, image, right) in enumerate(rows):
        categories[category].append((f"{image}-{place}", right))
    if expected is None:
        with pytest.raises(ValueError, match="2 samples are scored together, but 1 of 'i1'"):
            by_group(*zip(*categories["count"], strict=True), 2, pair)
        return
    total = 0.0
    for members in categories.values():
        settled = by_group(*zip(*members, strict=True), 2, pair)
        total += 200 * sum(score for score in settled if score is not None) / len(settled)
    assert total == pytest.approx(expected, abs=1e-9), note


@pytest.mark.parametrize(("rows", "expected", "note"), vectors("mmbench_circular"))
def test_rotations_add_up_to_the_official_score(rows: list[list[Any]], expected: float, note: str) -> None:
    questions = defaultdict(list)
    for index, gold, answer in rows:
        questions[index % 10**6].append(float(letter(answer, options=OPTIONS) == gold))
    scores = [circular(members)[0] for members in questions.values()]
    assert sum(scores) / len(scores) == pytest.approx(expected), note


@given(rights)
def test_a_group_is_worth_1_only_where_all_are_right(members: list[float]) -> None:
    assert circular(members) == [float(min(members))] * len(members)
    assert sum(pair(members)) / len(members) == pytest.approx((sum(members) / len(members) + min(members)) / 2)
    assert (min(pair(members)) == 1.0) == all(members)


@given(st.lists(st.tuples(*[st.sampled_from([0.0, 1.0, None])] * 2), min_size=1, max_size=5), st.data())
def test_a_missing_score_takes_its_own_group_and_no_other(
    pairs: list[tuple[float | None, float | None]], data: st.DataObject
) -> None:
    rows = [(f"t-{place}-{member}", one[member]) for place, one in enumerate(pairs) for member in (0, 1)]
    rows = data.draw(st.permutations(rows))
    settled = by_group([name for name, _ in rows], [score for _, score in rows], 2, pair)
    for (name, _), score in zip(rows, settled, strict=True):
        assert (score is None) == (None in pairs[int(name.split("-")[1])])


def test_options_are_read_from_the_lines_of_a_question() -> None:
    question = "What is it?\nThere are several options:\nA. a cat\nB. B. Dog\nWhat would A. Smith say, or D. Jones?"
    assert listed_options(question) == {"A": "a cat", "B": "B. Dog"}
    assert listed_options("Is it A or B?") == {}
