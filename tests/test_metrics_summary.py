"""OP, OG, OL and OE: published numbers are reproduced, and the definitions hold for any numbers."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effivlm.metrics import summary
from effivlm.metrics.summary import Mean
from effivlm.report import published

PUBLISHED = published.load()
ratios = st.lists(st.one_of(st.none(), st.floats(0.01, 2)), max_size=12)
tables = st.integers(1, 4).flatmap(
    lambda tasks: st.dictionaries(
        st.sampled_from("xyz"),
        st.fixed_dictionaries({f"t{place}": st.floats(0.05, 2) for place in range(tasks)}),
        min_size=1,
    )
)


def op_of(row: list[Any]) -> float:
    model, _, _, _, scores = row
    value = summary.overall_performance(a / b for a, b in zip(scores, PUBLISHED["dense"][model], strict=True)).value
    assert value is not None
    return value


def test_op_reproduces_all_but_two_of_the_published_pruning_rows() -> None:
    differing = [(row[0], row[2]) for row in PUBLISHED["pruning"] if round(op_of(row), 2) != row[3]]
    assert differing == [("InternVL2.5-38B", "PruMerge+")] * 2


def test_op_is_within_a_thousandth_of_every_published_parameter_row_but_one() -> None:
    apart = {(row[1], row[2]): abs(op_of(row) - row[3]) for row in PUBLISHED["parameter"]}
    assert len(apart) == 11
    assert {name: round(off, 5) for name, off in apart.items() if off > 0.001} == {("20%", "SparseGPT"): 0.00109}


@pytest.mark.parametrize(("place", "keep"), [(0, 0.01), (4, 0.4)])
def test_og_reproduces_the_published_values_of_the_cache_methods(place: int, keep: float) -> None:
    assert PUBLISHED["cache_budgets"][place] == keep
    printed = {method: values[place == 4] for method, *values in PUBLISHED["og"]}
    methods = {method for _, _, method, _ in PUBLISHED["cache"]}
    assert len(methods) == 6
    for method in methods:
        found = summary.generalization(cache_ratios(method, place))
        assert found.n == 8
        assert found.value == pytest.approx(printed[method], abs=0.005), method


def cache_ratios(method: str, place: int) -> dict[str, dict[str, float | None]]:
    by_model: dict[str, dict[str, float | None]] = {}
    for model, task, own, values in PUBLISHED["cache"]:
        if own == method:
            dense = PUBLISHED["dense"][model][PUBLISHED["benchmarks"].index(task)]
            by_model.setdefault(model, {})[task] = values[place] / dense
    return by_model


@pytest.mark.parametrize(("keep", "eight", "fifteen"), [(0.01, 75.68, 58.46), (0.4, 14.18, 11.87)])
def test_og_of_fastv_is_another_on_the_benchmarks_of_the_cache_methods(
    keep: float, eight: float, fifteen: float
) -> None:
    """Why tables are built on one set: the printed table compares 8 benchmarks of some methods with 15 of others."""
    printed = {method: values[keep == 0.4] for method, *values in PUBLISHED["og"]}
    assert printed["FastV"] == fifteen
    for names, expected, within in (
        (PUBLISHED["cache_benchmarks"], eight, 0.005),
        (PUBLISHED["benchmarks"], fifteen, 0.1),
    ):
        by_model = {
            model: {
                name: score / dense
                for name, score, dense in zip(PUBLISHED["benchmarks"], scores, PUBLISHED["dense"][model], strict=True)
                if name in names
            }
            for model, own, method, _, scores in PUBLISHED["pruning"]
            if (own, method) == (keep, "FastV")
        }
        found = summary.generalization(by_model)
        assert found.n == len(names)
        assert found.value == pytest.approx(expected, abs=within)


@given(ratios, st.randoms())
def test_op_ignores_order_and_repetition_and_counts_what_is_missing(
    values: list[float | None], rng: random.Random
) -> None:
    found = summary.overall_performance(values)
    shuffled = [*values, *values]
    rng.shuffle(shuffled)
    again = summary.overall_performance(shuffled)
    assert (again.n, again.missing) == (2 * found.n, 2 * found.missing)
    assert found.n + found.missing == len(values)
    assert (again.value is None) == (found.value is None) == (found.n == 0)
    assert again.value is None or again.value == pytest.approx(found.value)


@given(ratios)
def test_op_is_never_under_the_plain_mean(values: list[float | None]) -> None:
    rms, plain = summary.overall_performance(values).value, summary.mean(values).value
    assert (rms is None and plain is None) or (rms is not None and plain is not None and rms >= plain - 1e-12)


@given(tables, st.floats(0.1, 3))
def test_og_does_not_change_when_all_ratios_are_scaled(table: dict[str, dict[str, float]], factor: float) -> None:
    scaled = {model: {task: value * factor for task, value in row.items()} for model, row in table.items()}
    for define in (summary.generalization, summary.generalization_across_models):
        found, again = define(table).value, define(scaled).value
        assert (found is None) == (again is None)
        assert found is None or again == pytest.approx(found, abs=1e-6)


@given(tables)
def test_og_across_models_is_og_of_the_transposed_table(table: dict[str, dict[str, float]]) -> None:
    turned: dict[str, dict[str, float | None]] = {}
    for model, row in table.items():
        for task, value in row.items():
            turned.setdefault(task, {})[model] = value
    found, again = summary.generalization_across_models(table), summary.generalization(turned)
    assert found.n == again.n
    assert (found.value is None and again.value is None) or found.value == pytest.approx(again.value, abs=1e-9)


def test_a_task_that_one_model_lacks_is_missing_from_og_for_all() -> None:
    found = summary.generalization({"m": {"a": 1.0, "b": 0.5, "c": 0.1}, "k": {"a": 1.0, "b": 0.5, "c": None}})
    assert (found.n, found.missing) == (2, 1)
    assert found.value == pytest.approx(100 * 0.25 / 0.75)


def test_og_of_one_task_is_undefined_and_not_zero() -> None:
    assert summary.generalization({"m": {"a": 0.9}}) == Mean(None, 1, 0)


def test_loyalty_averages_tasks_before_models() -> None:
    found = summary.loyalty({"m": {"a": 1.0, "b": 0.0}, "k": {"a": 1.0, "b": None}})
    assert found == Mean(0.75, 3, 1)


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=8))
def test_efficiency_of_inverse_speedups_is_the_inverse(speedups: list[float]) -> None:
    found, inverse = summary.efficiency(speedups).value, summary.efficiency(1 / one for one in speedups).value
    assert found is not None
    assert inverse is not None
    assert math.isclose(found * inverse, 1, rel_tol=1e-9)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_is_refused_and_not_averaged(value: float) -> None:
    for define in (summary.mean, summary.overall_performance, summary.efficiency):
        with pytest.raises(ValueError, match="is no number to average"):
            define([1.0, value])
    for over in (summary.generalization, summary.generalization_across_models, summary.loyalty):
        with pytest.raises(ValueError, match="is no number to average"):
            over({"m": {"a": 1.0, "b": value}})


def test_a_speedup_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="not positive"):
        summary.efficiency([1.0, 0.0])
