"""Scorers of single answers against vectors of the official scripts, and what must hold for every answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effivlm.metrics.anls import anls, anls_pages
from effivlm.metrics.contains import contains
from effivlm.metrics.exact import exact_match
from effivlm.metrics.lines import line_f1
from effivlm.metrics.relaxed import relaxed_accuracy
from effivlm.metrics.vqa_accuracy import vqa_accuracy

DATA = Path(__file__).parent / "data"
Scorer = Callable[[str, Sequence[str]], float]
SCORERS: dict[str, Scorer] = {
    "anls_mpdocvqa": anls_pages,
    "exact_match": exact_match,
    "relaxed_accuracy": relaxed_accuracy,
    "vqa_accuracy": vqa_accuracy,
}
NEAREST = (anls, anls_pages, contains, exact_match, line_f1, relaxed_accuracy)
texts = st.text(max_size=30)
answers = st.lists(texts, min_size=1, max_size=5)
words = st.text("abc 1", min_size=1, max_size=8).filter(str.strip)


def vectors(name: str) -> list[Any]:
    found: list[Any] = json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))["vectors"]
    return found


@pytest.mark.parametrize(
    ("name", "prediction", "references", "expected", "note"),
    [(name, *row) for name in SCORERS for row in vectors(name)],
)
def test_a_scorer_agrees_with_the_official_script(
    name: str, prediction: str, references: list[str], expected: float, note: str
) -> None:
    assert SCORERS[name](prediction, references) == pytest.approx(expected, abs=1e-12), note


@pytest.mark.parametrize(("prediction", "references", "formula", "fork", "official", "note"), vectors("ocrbench"))
def test_containing_agrees_with_the_official_rule(
    prediction: str, references: list[str], formula: bool, fork: float, official: float, note: str
) -> None:
    assert contains(prediction, references, formula) == official, note
    assert formula or fork == official


@pytest.mark.parametrize("scorer", [*NEAREST, vqa_accuracy])
def test_a_scorer_without_references_refuses(scorer: Scorer) -> None:
    with pytest.raises(ValueError, match="got none"):
        scorer("x", [])


@pytest.mark.parametrize("scorer", [*NEAREST, vqa_accuracy])
@given(text=texts, references=answers)
def test_a_score_lies_between_0_and_1(scorer: Scorer, text: str, references: list[str]) -> None:
    assert 0.0 <= scorer(text, references) <= 1.0


@pytest.mark.parametrize("scorer", NEAREST)
@given(text=texts, references=answers, data=st.data())
def test_the_order_of_references_does_not_count_and_one_more_never_costs(
    scorer: Scorer, text: str, references: list[str], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(references))
    assert scorer(text, shuffled) == scorer(text, references)
    assert scorer(text, [*references, "abc"]) >= scorer(text, references)


@pytest.mark.parametrize("scorer", NEAREST)
@given(text=words, blanks=st.sampled_from(["", " ", "\n", "  \t"]))
def test_the_reference_itself_in_blanks_and_in_capitals_scores_1(scorer: Scorer, text: str, blanks: str) -> None:
    text = text.strip()
    assert scorer(f"{blanks}{text.upper()}{blanks}", [text, "something else"]) == 1.0


@given(text=words, others=st.integers(0, 9), data=st.data())
def test_vqa_accuracy_counts_agreeing_people_in_any_order(text: str, others: int, data: st.DataObject) -> None:
    agreeing = 10 - others
    people = [text] * agreeing + [f"zzz{number}" for number in range(others)]
    expected = min(1.0, agreeing * 0.3)  # of ten: 0.3 each, for the one left out is missing in k of the ten means
    score = vqa_accuracy(text, data.draw(st.permutations(people)))
    assert score == pytest.approx({3: 0.9}.get(agreeing, expected), abs=1e-12)


@given(text=texts, tail=texts)
def test_text_after_what_was_asked_for_costs_nothing_where_containing_is_enough(text: str, tail: str) -> None:
    assert contains(f"it says {text} {tail}", [text]) == 1.0


@given(value=st.floats(1e-3, 1e6), share=st.floats(-0.2, 0.2))
def test_relaxed_accuracy_forgives_five_percent_of_the_reference(value: float, share: float) -> None:
    given_value = value * (1 + share)
    if abs(abs(share) - 0.05) > 1e-9:
        assert relaxed_accuracy(repr(given_value), [repr(value)]) == float(abs(share) < 0.05)
    assert relaxed_accuracy(repr(-given_value), [repr(value)]) == 0.0
