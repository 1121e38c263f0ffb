"""The page on sensitivity says what the baseline's scores say, and refuses a baseline with holes."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import pytest
from toy_session import ROOT

from effivlm.metrics.statistics import bootstrap_mean
from effivlm.report.baseline import Side, load


@pytest.fixture(scope="module")
def sensitivity() -> Any:
    sys.path.insert(0, str(ROOT / "bench_tests" / "studies"))
    import sensitivity

    return sensitivity


@pytest.fixture(scope="module")
def side(sensitivity: Any) -> Side:
    return load(sensitivity.SOURCE)


def test_means_and_losses_are_those_of_the_stored_scores(sensitivity: Any, side: Side) -> None:
    grid = sensitivity.Grid.of(side)
    model, keep = grid.models[0], grid.keeps[0]
    for task in grid.tasks:
        cell, dense = (
            next(
                one
                for one in side.cells.values()
                if (one.data["model"], one.data["method"], one.data["keep"], one.data["task"]) == key
            )
            for key in ((model, "random_kv", keep, task), (model, "dense", 1.0, task))
        )
        lost = grid.lost(model, "random_kv", keep, task)
        assert len(lost) == len(cell.scores) / cell.group
        assert sum(lost) / len(lost) == pytest.approx(cell.data["score"] - dense.data["score"], abs=1e-4)


def test_a_baseline_with_a_hole_or_a_double_is_refused(sensitivity: Any, side: Side) -> None:
    name, one = next((name, one) for name, one in side.cells.items() if one.data["method"] == "snapkv")
    without = {key: cell for key, cell in side.cells.items() if key != name}
    with pytest.raises(ValueError, match=r"lacks 1 cells, such as \S+ snapkv"):
        sensitivity.Grid.of(replace(side, cells=without))
    with pytest.raises(ValueError, match="twice: with two presets"):
        sensitivity.Grid.of(replace(side, cells={**side.cells, "again": one}))


def test_a_method_that_does_not_rise_with_its_budget_is_named(sensitivity: Any, side: Side) -> None:
    model = sensitivity.Grid.of(side).models[0]

    def upside_down(one: Any) -> Any:
        if (one.data["model"], one.data["method"]) != (model, "snapkv"):
            return one
        return replace(one, data={**one.data, "score": 1 - one.data["keep"]})

    turned = replace(side, cells={name: upside_down(one) for name, one in side.cells.items()})
    (line,) = [text for text in sensitivity.page(turned).splitlines() if text.startswith("Rank correlation below 0.9")]
    assert f"`snapkv` on `{model}` (-1.00)" in line
    assert sensitivity.rank_correlation([0.2, 0.2, 0.2]) == 0
    assert sensitivity.rank_correlation([0.1, 0.2, 0.4, 0.3, 0.5]) == pytest.approx(0.9)


def test_a_loss_is_certain_only_where_its_whole_interval_lies_below_nothing(sensitivity: Any) -> None:
    assert sensitivity.below(bootstrap_mean([-0.5, -0.6, -0.4, -0.5]))
    assert not sensitivity.below(bootstrap_mean([-1.0, 1.0, -1.0, 0.9]))
    assert not sensitivity.below(bootstrap_mean([-1.0]))
