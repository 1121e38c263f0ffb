"""How often a verdict is false where nothing changed, and how often what samples could show is shown: truth is planted here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.stats import ttest_ind

from effivlm.metrics.discoveries import detectable, difference_p, effective, one_sided_p, spreads
from effivlm.metrics.resampling import Resampling
from effivlm.metrics.statistics import intervals, stated, weights
from effivlm.records import Outcome
from effivlm.report.document import build
from tests.gating import judged, right, rows, side
from tests.outcomes import END, HEADER, cell, quality

METHODS = ("fastv", "visionzip", "divprune", "dart", "holov")


def _graded(rng: np.random.Generator, shared: Any) -> list[float]:
    """Scores of one of several settings that are alike in truth."""
    found: list[float] = (0.5 * shared + 0.5 * rng.beta(4, 2, len(shared))).tolist()
    return found


@pytest.mark.parametrize(("n", "tasks"), [(6, ("a",)), (5, ("a", "b", "c"))])
def test_ops_that_are_alike_are_seldom_told_apart_by_few_samples(n: int, tasks: tuple[str, ...]) -> None:
    rng, false = np.random.default_rng(n), 0
    for _ in range(120):
        outcomes: list[Outcome] = []
        for task in tasks:
            shared = rng.beta(4, 2, n)
            outcomes.append(quality(cell(task=task), _graded(rng, shared)))
            for method in ("random_visual", *METHODS):
                outcomes.append(quality(cell(method, "0.10", task), _graded(rng, shared)))
        told = [row["control"]["verdict"] for row in build(HEADER, outcomes, END)["summary"]["op"] if row["control"]]
        assert len(told) == len(METHODS)
        false += any(one in ("beats random", "below random") for one in told)
    assert false <= 0.05 * 120 + 7, "one report in twenty, and three standard errors"


def test_as_many_groups_tell_of_a_sum_as_welchs_test_has_degrees_of_freedom() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(0, 1, 6), rng.normal(0, 3, 20)
    variances = [float(side.var(ddof=1)) / len(side) for side in (one, other)]
    assert effective(variances, [6, 20]) - 1 == pytest.approx(ttest_ind(one, other, equal_var=False).df)
    assert effective([0.3], [9]) == pytest.approx(9)
    assert effective([0.0, 0.0], [9, 7]) == 7
    assert effective([0.3, 0.0], [9, 1]) == 1


def _lost(rng: np.random.Generator, n: int, lost: float) -> Any:
    """Right answers that become wrong, each with the same chance."""
    return -(rng.random((n, 400)) < lost).astype(float)


def _lowered(rng: np.random.Generator, n: int, lost: float) -> Any:
    return rng.normal(-lost, 0.2, (n, 400))


@pytest.mark.parametrize("n", [8, 12, 24, 60])
@pytest.mark.parametrize("drawn", [_lost, _lowered], ids=lambda one: one.__name__)
def test_what_samples_could_show_is_shown_four_times_in_five(
    drawn: Callable[[np.random.Generator, int, float], Any], n: int
) -> None:
    """Where the truth is the difference that they say they could show, by the median of what they say."""
    rng, drawing = np.random.default_rng(n), weights(n, 0)

    def of(lost: float) -> tuple[float, float]:
        gains = drawn(rng, n, lost)
        wide, unlike = spreads(drawing @ gains / n), np.count_nonzero(gains, axis=0).tolist()
        said = [detectable(*one) for one in zip(wide, [n] * len(wide), unlike, strict=True)]
        ps = [difference_p(*one) for one in zip(gains.mean(axis=0), wide, [n] * len(wide), unlike, strict=True)]
        return float(np.median([9 if one is None else one for one in said])), float(np.mean(np.array(ps) <= 0.05))

    low, high = 0.0, 1.0
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if of(middle)[0] > middle else (low, middle)
    assert 0.68 <= of(high)[1] <= 0.9


def test_what_cannot_be_shown_is_not_said_to_be() -> None:
    assert detectable(0.1, 5, 5) is None, "five that differ alike are no proof"
    assert detectable(0.1, 4) is None
    assert detectable(0.0, 100) is None, "nothing is known of what else could have been"
    found = detectable(0.0, 24, 0)
    assert found is not None
    assert detectable(0.0, 24, 24) == found, "all differed alike, which says nothing of smaller differences"
    shown = np.random.default_rng(0).binomial(24, found, 4000) >= 6
    assert shown.mean() == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_a_gate_on_few_samples_seldom_fails_where_nothing_changed(n: int) -> None:
    rng, failed = np.random.default_rng(n), 0
    for _ in range(60):
        before, after = ([], [])  # type: tuple[list[Outcome], list[Outcome]]
        for method in METHODS:
            was = rng.beta(4, 2, n)
            now = np.clip(was + rng.normal(0, 0.1, n), 0, 1)
            before.append(quality(cell(method, "0.10"), was.tolist()))
            after.append(quality(cell(method, "0.10"), now.tolist()))
        failed += judged(side(before), side(after))["status"] == "failed"
    assert failed <= 0.025 * 60 + 4


def test_a_method_that_broke_fails_the_gate_on_few_samples_and_two_cannot_tell() -> None:
    for n, status in ((2, "warn"), (3, "fail"), (8, "fail")):
        found = judged(side([quality(cell(), right(n, n))]), side([quality(cell(), right(0, n))]))
        assert rows(found, status) == [(cell().id, "score")]
    assert one_sided_p(1.0, 0.01, 0.0, 3) == 4.0**-3
    assert one_sided_p(0.0, 0.01, 0.0, 3) == 1.0


def test_cells_that_did_not_change_take_no_room_beside_one_that_fell() -> None:
    same = [quality(cell(method, "0.10"), right(16, 24)) for method in METHODS]
    found = judged(
        side([*same, quality(cell(), right(24, 24))]), side([*same, quality(cell(), [1.0] * 18 + [0.0] * 6)])
    )
    (row,) = (row for row in found["rows"] if row["status"] == "fail")
    assert row["p"] == row["q"]


def _held(groups: int) -> float:
    """How often the stated interval of a score holds the truth: pictures with some questions each, half of them lost together."""
    rng, held = np.random.default_rng(groups), []
    for seed in range(12):
        units = np.repeat(np.arange(groups), 1 + rng.poisson(1.5, groups))
        together = rng.random((len(units), 60)) < 0.5
        drawn = np.where(together, rng.random((groups, 60))[units], rng.random((len(units), 60)))
        scores = (drawn < 0.6).astype(float)
        resamples = Resampling.of(units, seed)
        found = stated(intervals(resamples.means(scores)), resamples.answered(scores), 0, 1)
        held += [one is not None and one[0] <= 0.6 <= one[1] for one in found]
    return float(np.mean(held))


def test_intervals_of_few_groups_are_too_narrow_as_the_documentation_says_and_those_of_many_are_not() -> None:
    assert 0.75 <= _held(5) < 0.9
    assert 0.92 <= _held(100) <= 0.98
