"""Scorers and normal forms of single answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effivlm.metrics import choice, normalise
from effivlm.metrics.anls import anls
from effivlm.metrics.same import same

DATA = Path(__file__).parent / "data"
TYPES = ("choice", "yes_no", "number", "short", "ocr")
words = st.text(max_size=30)


def vectors(name: str) -> list[Any]:
    found: list[Any] = json.loads((DATA / name).read_text(encoding="utf-8"))["vectors"]
    return found


@pytest.mark.parametrize(("prediction", "references", "expected", "note"), vectors("anls_docvqa.json"))
def test_anls_agrees_with_the_official_script(
    prediction: str, references: list[str], expected: float, note: str
) -> None:
    assert anls(prediction, references) == pytest.approx(expected, abs=1e-12), note


@given(words, st.lists(words, min_size=1, max_size=4))
def test_anls_is_zero_or_at_least_a_half_and_never_falls_when_a_reference_is_added(
    text: str, references: list[str]
) -> None:
    score = anls(text, references)
    assert score == 0 or 0.5 <= score <= 1
    assert anls(text, [*references, "another"]) >= score
    assert anls(text, [*references, text.strip()]) == 1


def test_anls_without_references_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one reference"):
        anls("x", [])


@pytest.mark.parametrize(("kind", "text", "dense", "options", "expected", "note"), vectors("same_answer.json"))
def test_same_follows_its_definition_in_both_directions(
    kind: str, text: str, dense: str, options: dict[str, str] | None, expected: bool, note: str
) -> None:
    assert same(kind, text, dense, options) is expected, note
    assert same(kind, dense, text, options) is expected, note


@pytest.mark.parametrize(
    ("kind", "text", "dense"),
    [
        ("number", "nan", "inf"),
        ("ocr", "3.50", "350"),
        ("ocr", "?", "!"),
        ("short", "the the", ""),
        ("number", "100", "100.1"),
    ],
)
def test_answers_that_only_a_loose_rule_would_confuse_differ(kind: str, text: str, dense: str) -> None:
    assert not same(kind, text, dense)


@given(st.sampled_from(TYPES), words)
def test_every_answer_is_the_same_as_itself(kind: str, text: str) -> None:
    assert same(kind, text, text)


@given(st.sampled_from(TYPES), words, words)
def test_same_is_symmetric(kind: str, text: str, other: str) -> None:
    assert same(kind, text, other) == same(kind, other, text)


def test_free_form_and_unknown_types_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'free' has no exact notion"):
        same("free", "a", "a")
    with pytest.raises(ValueError, match="'poem' is not one of choice, yes_no"):
        same("poem", "a", "a")


@pytest.mark.parametrize(("text", "expected", "note"), vectors("evalai_normalise.json"))
def test_evalai_normalisation_agrees_with_the_official_processor(text: str, expected: str, note: str) -> None:
    assert normalise.evalai(text) == expected, note


@pytest.mark.parametrize(("name", "text", "letters", "options", "gold", "right"), vectors("choice_letters.json"))
def test_the_letter_of_a_choice_is_found_without_guessing(
    name: str, text: str, letters: str, options: dict[str, str] | None, gold: str | None, right: bool
) -> None:
    assert (choice.letter(text, letters, options) == gold) is right, name


@pytest.mark.parametrize(
    ("text", "value"),
    [("50%", 0.5), ("$1,000", 1000.0), (" -3.5 ", -3.5), ("12 apples", None), ("nan", None), ("", None)],
)
def test_only_a_bare_number_is_read_as_one(text: str, value: float | None) -> None:
    assert normalise.number(text) == value
