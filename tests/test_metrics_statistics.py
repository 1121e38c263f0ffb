"""Intervals and tests over samples."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effivlm.metrics import statistics as stats

scores = st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=20)


@settings(max_examples=30)
@given(scores)
def test_the_bootstrap_interval_lies_among_the_values_and_counts_the_missing(values: list[float | None]) -> None:
    found = stats.bootstrap_mean(values, rounds=200)
    present = [value for value in values if value is not None]
    assert (found.n, found.missing) == (len(present), len(values) - len(present))
    assert (found.interval is None) == (len(present) < 2)
    if found.interval is not None:
        assert min(present) - 1e-9 <= found.interval[0] <= found.interval[1] <= max(present) + 1e-9


def test_the_bootstrap_depends_on_its_seed_alone() -> None:
    rng = random.Random(1)
    values = [rng.random() for _ in range(50)]
    assert stats.bootstrap_mean(values, seed=3) == stats.bootstrap_mean(values, seed=3)
    assert stats.bootstrap_mean(values, seed=3).interval != stats.bootstrap_mean(values, seed=4).interval


def test_the_bootstrap_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    rng = random.Random(0)
    runs = [[float(rng.random() < 0.7) for _ in range(80)] for _ in range(200)]
    intervals = [stats.bootstrap_mean(run, rounds=300).interval for run in runs]
    held = sum(found is not None and found[0] <= 0.7 <= found[1] for found in intervals)
    assert 178 <= held <= 199


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_sign_test_is_symmetric_and_a_probability(better: int, worse: int) -> None:
    assert 0 < stats.sign_p(better, worse) == stats.sign_p(worse, better) <= 1


def test_the_sign_test_takes_thousands_of_samples() -> None:
    assert 0 < stats.sign_p(4000, 4500) < 1e-6


@pytest.mark.parametrize(("n", "rank"), [(5, None), (6, 0), (8, 0), (9, 1), (20, 5)])
def test_the_median_interval_takes_the_tabled_order_statistics(n: int, rank: int | None) -> None:
    expected = None if rank is None else (rank, n - 1 - rank)
    assert stats.median_interval([float(place) for place in reversed(range(n))]) == expected


def test_undefined_draws_lie_beyond_both_ends_and_too_many_leave_no_interval() -> None:
    draws = np.stack([np.arange(200.0)] * 3, axis=1)
    draws[100:102, 1] = math.nan
    draws[100:106, 2] = math.nan
    assert stats.intervals(draws) == [(5.0, 194.0), (3.0, 196.0), None]


def test_means_of_resamples_leave_gaps_out() -> None:
    resamples = np.array([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    found = stats.means(resamples, np.array([[4.0], [math.nan]]))
    assert found[[0, 2], 0].tolist() == [4.0, 4.0]
    assert math.isnan(found[1, 0])
