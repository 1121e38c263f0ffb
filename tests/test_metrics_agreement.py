"""Agreement of answers beyond being the same: graded, by token, against chance, and what became of right answers."""

from __future__ import annotations

import math
import random
import time
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effivlm.metrics import agreement
from effivlm.metrics.same import label, same
from effivlm.metrics.statistics import sign_p

word_lists = st.lists(st.sampled_from(["a", "b", "c", "A"]), max_size=7)
tokens = st.lists(st.integers(0, 2), max_size=6)
labels = st.lists(st.sampled_from("ABC"), min_size=1, max_size=20)
spoken = st.sampled_from(
    [
        "yes",
        "No.",
        "no",
        "B",
        "(b)",
        "the answer is B",
        "A or B",
        "",
        "?",
        "the",
        "the the",
        "Nokia",
        " nokia ",
        "none",
        "0",
        "3.5",
    ]
)


@pytest.mark.parametrize(
    ("text", "reference", "expected", "why"),
    [
        ("a red circle", "A  RED\ncircle", 1.0, "case and blanks do not count"),
        ("the red circle", "a red circle", 2 / 3, "two of three words, in order"),
        ("circle red a", "a red circle", 1 / 3, "one word at most keeps the order"),
        ("a red circle on top", "a red circle", 6 / 8, "precision 3/5, recall 1"),
        ("circle.", "circle", 0.0, "punctuation is part of a word"),
        ("", "", 1.0, "two empty answers agree"),
        ("", "a", 0.0, "one empty answer does not"),
    ],
)
def test_rouge_l_follows_its_definition(text: str, reference: str, expected: float, why: str) -> None:
    assert agreement.rouge_l(text, reference) == pytest.approx(expected, abs=1e-12), why


def test_a_runaway_answer_of_a_megabyte_is_compared_by_its_beginning() -> None:
    begun = time.process_time()
    assert agreement.rouge_l("a " * 500_000, "a " * agreement.WORDS) == 1.0
    assert agreement.rouge_l("a b " * 250_000, "a c " * 250_000) == 0.5
    assert time.process_time() - begun < 2


@given(word_lists, word_lists)
def test_rouge_l_is_that_of_the_longest_common_subsequence(words: list[str], others: list[str]) -> None:
    left, right = tuple(" ".join(words).lower().split()), tuple(" ".join(others).lower().split())
    found = agreement.rouge_l(" ".join(words), " ".join(others))
    assert found == agreement.rouge_l(" ".join(others), " ".join(words))
    total = len(left) + len(right)
    assert found == pytest.approx(2 * longest(left, right) / total if total else 1.0, abs=1e-12)


@cache
def longest(left: tuple[str, ...], right: tuple[str, ...]) -> int:
    if not left or not right:
        return 0
    if left[-1] == right[-1]:
        return longest(left[:-1], right[:-1]) + 1
    return max(longest(left[:-1], right), longest(left, right[:-1]))


@given(tokens, tokens)
def test_the_common_prefix_is_equal_and_cannot_be_longer(own: list[int], other: list[int]) -> None:
    count = agreement.common_prefix(own, other)
    assert own[:count] == other[:count]
    assert count == min(len(own), len(other)) or own[count] != other[count]


def test_the_prefix_share_is_of_the_dense_answer_and_an_empty_one_is_matched_by_an_empty_one_alone() -> None:
    common, own, dense = (np.array(one, dtype=np.float64) for one in ([2, 0, 0, math.nan], [9, 0, 3, 2], [4, 0, 0, 4]))
    found = agreement.prefix_share(common, own, dense).tolist()
    assert found[:3] == [0.5, 1.0, 0.0]
    assert math.isnan(found[3])


def test_kappa_takes_off_what_two_coins_would_share() -> None:
    own, dense = ["yes"] * 5 + ["no"] * 5, ["yes"] * 4 + ["no"] * 6
    by_chance = agreement.chance(own, dense)
    assert by_chance == pytest.approx(0.5)
    assert agreement.kappa(0.9, by_chance) == pytest.approx(0.8)
    assert agreement.kappa(0.5, by_chance) == pytest.approx(0.0)


@given(labels, st.randoms())
def test_kappa_of_equal_labels_is_1_unless_there_is_only_one_label(own: list[str], rng: random.Random) -> None:
    by_chance = agreement.chance(own, own)
    shuffled = rng.sample(own, len(own))
    assert agreement.chance(shuffled, own) == by_chance
    assert agreement.kappa(1.0, by_chance) == (None if len(set(own)) == 1 else 1.0)


def test_agreement_by_chance_of_no_labels_is_refused() -> None:
    with pytest.raises(ValueError, match="needs labels on both sides"):
        agreement.chance([], [])


def test_flips_count_each_complete_pair_once_by_what_became_of_it() -> None:
    scores = np.array([[0.0, 1.0], [1.0, 0.4], [0.5, 1.0], [0.0, 0.4], [0.1, 0.0], [math.nan, 1.0], [0.0, 0.0]])
    dense = np.array([[1.0], [0.0], [1.0], [0.0], [0.0], [1.0], [math.nan]])
    same_ = np.array([[0.0, 1.0], [0.0, 0.0], [1.0, 1.0], [1.0, 1.0], [0.0, 0.0], [0.0, math.nan], [1.0, 1.0]])
    first, second = agreement.flips(scores, np.broadcast_to(dense, scores.shape), same_)
    assert list(first.values()) == [1, 1, 1, 1, 1]
    assert list(first) == ["right_to_wrong", "wrong_to_right", "both_right", "both_wrong_same", "both_wrong_different"]
    assert list(second.values()) == [0, 0, 2, 1, 2]


@given(st.sampled_from(["choice", "yes_no", "short", "ocr"]), st.one_of(spoken, st.text(max_size=9)), spoken)
def test_labels_are_equal_exactly_where_answers_are_the_same(kind: str, text: str, other: str) -> None:
    assert (label(kind, text) == label(kind, other)) == same(kind, text, other)


@pytest.mark.parametrize(("kind", "text", "expected"), [("choice", "(b)", "B"), ("yes_no", "No, it is.", "no")])
def test_the_label_of_a_closed_answer_is_what_it_names(kind: str, text: str, expected: str) -> None:
    assert label(kind, text) == expected


def test_an_answer_that_names_nothing_has_no_label_that_an_option_could_have() -> None:
    assert label("yes_no", "maybe") == label("yes_no", "Maybe.") != label("yes_no", "perhaps")
    assert label("choice", "the a b") not in set("ABCDEFGH")
    with pytest.raises(ValueError, match="'number' is not one of choice, yes_no"):
        label("number", "1")


@given(st.integers(0, 40), st.integers(0, 40))
def test_the_sign_test_is_the_exact_binomial_tail(better: int, worse: int) -> None:
    n, least = better + worse, min(better, worse)
    tail = Fraction(sum(math.comb(n, k) for k in range(least + 1)), 2**n)
    assert sign_p(better, worse) == pytest.approx(float(min(Fraction(1), 2 * tail)), rel=1e-12)
