"""Many comparisons: how often they are false discoveries, and what few samples can show."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from effivlm.metrics.discoveries import RATE, adjusted, detectable, difference_p, one_sided_p, spreads
from effivlm.metrics.statistics import weights


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_adjusted_p_values_are_those_of_benjamini_and_hochberg(ps: list[float]) -> None:
    assert adjusted(ps) == pytest.approx(false_discovery_control(ps).tolist())


def test_a_comparison_without_a_p_value_is_in_no_family() -> None:
    assert adjusted([0.01, None, 0.04]) == pytest.approx([0.02, None, 0.04])
    assert adjusted([None, None]) == [None, None]


def test_spreads_leave_out_what_is_undefined() -> None:
    draws = np.array([[1.0, np.nan, 3.0], [3.0, 2.0, np.nan], [5.0, 4.0, np.nan]])
    assert spreads(draws) == pytest.approx([2.0, np.sqrt(2.0), None])


def _compared(gains: Any) -> float | None:
    """The p-value of a mean gain over as many groups as there are values."""
    draws = weights(len(gains), 0, 400) @ gains / len(gains)
    unlike = int(np.count_nonzero(gains))
    return difference_p(float(gains.mean()), spreads(draws[:, None])[0], len(gains), unlike)


@pytest.mark.parametrize(("n", "most"), [(8, 0.06), (24, 0.07), (100, 0.07)])
def test_two_methods_that_are_alike_are_seldom_told_apart(n: int, most: float) -> None:
    rng = np.random.default_rng(n)
    pairs = rng.random((600, 2, n)) < 0.6
    ps = [_compared(left.astype(float) - right) for left, right in pairs]
    assert np.mean([p <= 0.05 for p in ps if p is not None]) <= most


def test_of_many_comparisons_of_which_most_are_alike_few_discoveries_are_false() -> None:
    rng, false, found = np.random.default_rng(0), [], 0
    for _ in range(12):
        shared = rng.random(60) < 0.5  # the control, which all have in common
        alike = rng.random((45, 60)) < 0.5
        better = rng.random((5, 60)) < 0.95
        qs = adjusted([_compared(row.astype(float) - shared) for row in (*better, *alike)])
        told = [q is not None and q <= RATE for q in qs]
        false.append(sum(told[5:]) / max(1, sum(told)))
        found += sum(told[:5])
    assert np.mean(false) <= 0.1
    assert found > 40, "of 60 true ones"


def test_five_samples_that_all_differ_alike_are_no_proof() -> None:
    assert difference_p(1.0, 0.0, 5, 5) == 2 / 2**5
    assert difference_p(1.0, 0.0, 4, 4) is None
    assert difference_p(0.0, 0.0, 50, 0) == 1.0


def test_a_detectable_difference_is_seen_four_times_in_five() -> None:
    rng, n, seen, least = np.random.default_rng(1), 80, 0, []
    for _ in range(200):
        gains = rng.normal(0.0, 0.3, n)
        spread = spreads(weights(n, 0, 300) @ gains[:, None] / n)[0]
        least.append(detectable(spread, n))
        moved = gains + np.median([one for one in least if one is not None])
        p = difference_p(float(moved.mean()), spread, n, n)
        seen += p is not None and p <= 0.05
    assert 140 <= seen <= 180


def test_a_one_sided_p_is_small_where_the_value_lies_above_what_is_allowed() -> None:
    assert one_sided_p(0.1, 0.1, 0.05) == pytest.approx(0.5)
    assert one_sided_p(0.3, 0.1, 0.05) < 1e-4
    assert (one_sided_p(0.2, 0.1, 0.0), one_sided_p(0.1, 0.1, 0.0)) == (0.0, 1.0)
