"""Resamples of scores that are means over samples, over groups of any size, or over parts of any size."""

from __future__ import annotations

import numpy as np
import pytest

from effivlm.metrics.categories import mean_of_means
from effivlm.metrics.mmbench import mmbench
from effivlm.metrics.resampling import Resampling
from effivlm.metrics.statistics import Floats, interval, intervals, means, stated, weights

GROUPS = (2, 4, 3, 4, 2, 4, 3, 2)
"""Rotations of questions, as many as they have options."""
PARTS = (40, 8, 15, 3, 30, 6)


def grouped() -> tuple[np.ndarray, Floats]:
    units = np.repeat(np.arange(len(GROUPS)), GROUPS)
    rights = np.array([float(number % 4 > 0) for number in range(len(GROUPS))])
    return units, rights[units][:, None]


def parted(rng: np.random.Generator, truth: Floats) -> Floats:
    return np.concatenate([(rng.random(n) < p).astype(float) for n, p in zip(PARTS, truth, strict=True)])[:, None]


NAMES = [f"part {number}" for number, n in enumerate(PARTS) for _ in range(n)]


def test_a_mean_over_groups_is_mmbenchs_score_in_the_data_and_in_each_resample() -> None:
    units, scores = grouped()
    found = Resampling.of(units, 3, "groups")
    indices = [unit + 1_000_000 * turn for unit, size in enumerate(GROUPS) for turn in range(size)]
    assert found.averages(scores) == [pytest.approx(mmbench(indices, scores[:, 0].tolist()))]
    assert found.averages(scores)[0] != pytest.approx(scores.mean()), "questions with more rotations weigh no more"
    drawn = weights(len(GROUPS), [3])
    firsts = np.cumsum((0, *GROUPS[:-1]))
    assert found.means(scores)[:, 0] == pytest.approx(drawn @ scores[firsts, 0] / len(GROUPS))
    assert found.answered(scores) == [len(GROUPS)]


def test_a_mean_over_parts_counts_every_part_alike_and_draws_it_by_itself() -> None:
    scores = parted(np.random.default_rng(0), np.linspace(0.2, 0.9, len(PARTS)))
    found = Resampling.of(np.arange(len(NAMES)), 1, "parts", NAMES)
    assert found.averages(scores) == [pytest.approx(mean_of_means(scores[:, 0].tolist(), NAMES))]
    draws = found.means(scores)[:, 0]
    assert not np.isnan(draws).any(), "no resample lacks a part"
    spread = sum(scores[np.array(NAMES) == name].var(ddof=1) / NAMES.count(name) for name in set(NAMES)) ** 0.5
    assert draws.std() == pytest.approx(spread / len(PARTS), rel=0.1)
    plain = Resampling.of(np.arange(len(NAMES)), 1).means(scores)[:, 0]
    assert abs(plain.mean() - draws.mean()) > 0.02, "a mean over samples is another number"


@pytest.mark.parametrize("truth", [0.5, 0.8])
def test_the_interval_of_a_mean_over_unequal_parts_holds_the_truth_as_often_as_it_says(truth: float) -> None:
    rng = np.random.default_rng(7)
    of_parts = np.clip(truth + np.linspace(-0.2, 0.19, len(PARTS)), 0, 1)
    found = Resampling.of(np.arange(len(NAMES)), 2, "parts", NAMES)
    sets = np.concatenate([parted(rng, of_parts) for _ in range(300)], axis=1)
    bounds = stated(intervals(found.means(sets)), found.answered(sets), 0, 1)
    held = np.mean([low <= of_parts.mean() <= high for low, high in filter(None, bounds)])
    assert 0.88 <= held <= 0.99


def test_a_part_of_one_sample_has_no_draws_and_says_so() -> None:
    found = Resampling.of(np.arange(5), 0, "parts", ["a", "a", "a", "b", "b"])
    assert not found.single
    lone = Resampling.of(np.arange(4), 0, "parts", ["a", "a", "a", "b"])
    assert lone.single
    assert interval(lone.means(np.ones((4, 1)))[:, 0]) is None
    assert lone.averages(np.array([[1.0], [0.0], [0.5], [0.0]])) == [0.25]


def test_samples_without_a_value_are_left_out_and_a_part_of_them_alone_too() -> None:
    names = ["a"] * 4 + ["b"] * 3 + ["c"] * 2
    found = Resampling.of(np.arange(9), 5, "parts", names)
    values = np.array([1.0, 0.0, np.nan, 1.0, 1.0, 1.0, 1.0, np.nan, np.nan])[:, None]
    assert found.averages(values) == [pytest.approx((2 / 3 + 1) / 2)]
    assert found.answered(values) == [6], "two parts, the smaller of three"
    assert found.averages(np.full((9, 1), np.nan)) == [None]
    assert found.answered(np.full((9, 1), np.nan)) == [0]
    both = found.means(np.hstack([values, np.ones((9, 1))]))
    assert np.nanmax(np.abs(both[:, 1] - 1)) < 1e-12


def test_a_difference_of_two_settings_is_paired_in_every_mean() -> None:
    units, scores = grouped()
    better = np.minimum(1.0, scores + 0.25)
    for average in ("samples", "groups"):
        found = Resampling.of(units, 9, average)
        apart = found.means(better) - found.means(scores)
        assert apart == pytest.approx(found.means(better - scores))
        assert apart.min() >= 0


def test_resamples_of_groups_of_unequal_size_average_over_what_they_drew() -> None:
    units = np.repeat([0, 1], [1, 9])
    ones = np.ones((10, 1))
    found = Resampling.of(units, 4)
    assert found.means(ones) == pytest.approx(np.ones((1000, 1))), "the mean of ones is one, whichever group was drawn"
    assert means(np.zeros((2, 3)), np.ones((3, 1))).tolist() != [[0.0], [0.0]], "a resample of nothing has no mean"
