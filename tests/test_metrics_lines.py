"""Line F1: pairs of lines, and the best of all pairings."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effivlm.metrics.lines import best_total, line_f1

lines = st.lists(st.text("abcd", min_size=1, max_size=6), min_size=1, max_size=7)
tables = st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**32 - 1))


@pytest.mark.parametrize(
    ("answer", "reference", "expected", "why"),
    [
        ("a red circle\na blue star", "a blue star\na red circle", 1.0, "the order of lines does not count"),
        ("A  red circle\n\n \n", "a red circle", 1.0, "case, blanks and empty lines do not count"),
        ("a red circle", "a red circle\na blue star", 2 / 3, "precision 1, recall 1/2"),
        ("abcd\nzzzz\nyyyy", "abcd", 1 / 2, "precision 1/3, recall 1"),
        ("abcd\nabcd", "abcd", 2 / 3, "one line of the reference is found once"),
        ("abcdefghix", "abcdefghij", 9 / 10, "a line counts by its similarity"),
        ("abcdx", "abcde", 4 / 5, "which is kept at exactly four fifths"),
        ("abcx", "abcd", 0.0, "and counts as 0 below"),
        ("abcd efgh", "abcd\nefgh", 0.0, "two lines run together resemble neither enough"),
        ("", "abcd", 0.0, "an empty answer"),
        ("", "", 0.0, "an empty answer, even to nothing"),
    ],
)
def test_line_f1_follows_its_definition(answer: str, reference: str, expected: float, why: str) -> None:
    assert line_f1(answer, [reference]) == pytest.approx(expected, abs=1e-12), why


def test_the_pairing_is_the_best_one_and_not_the_greedy_one() -> None:
    # 0.9 first would leave 0.0 for the other pair
    assert best_total(np.array([[0.9, 0.8], [0.8, 0.0]])) == pytest.approx(1.6)
    assert line_f1("aaaaabb\naaaaa", ["aaaaab\naaaaabbb"]) == pytest.approx((5 / 6 + 7 / 8) / 2)


def test_the_list_of_another_picture_scores_little() -> None:
    mine = "a red circle is top left\na blue star is top right\na green square is bottom left"
    other = "a blue cross is top left\na red square is bottom right\na white star is top left"
    assert line_f1(other, [mine]) < 0.2


@given(tables)
def test_the_best_total_is_that_of_all_pairings(table: tuple[int, int, int]) -> None:
    rows, columns, seed = table
    values = np.random.default_rng(seed).integers(0, 11, (rows, columns)) / 10  # ties on purpose
    wide = values if rows <= columns else values.T
    every = permutations(range(wide.shape[1]), wide.shape[0])
    brute = max(sum(wide[row, column] for row, column in enumerate(one)) for one in every)
    assert best_total(values) == pytest.approx(brute, abs=1e-9)
    assert best_total(values.T) == pytest.approx(brute, abs=1e-9)


@given(lines, lines, st.data())
def test_line_f1_is_symmetric_and_blind_to_the_order_of_lines(
    answer: list[str], reference: list[str], data: st.DataObject
) -> None:
    score = line_f1("\n".join(answer), ["\n".join(reference)])
    shuffled = ["\n".join(data.draw(st.permutations(part))) for part in (answer, reference)]
    assert line_f1(shuffled[0], [shuffled[1]]) == pytest.approx(score, abs=1e-12)
    assert line_f1("\n".join(reference), ["\n".join(answer)]) == pytest.approx(score, abs=1e-12)
    assert 0.0 <= score <= 1.0


@given(lines)
def test_only_all_lines_score_1_and_a_missing_one_costs_its_share(text: list[str]) -> None:
    whole = "\n".join(text)
    assert line_f1(whole, [whole]) == pytest.approx(1.0, abs=1e-12)
    assert line_f1(f"{whole}\nzzzzzzzzzzzzzzz", [whole]) == pytest.approx(2 * len(text) / (2 * len(text) + 1))
