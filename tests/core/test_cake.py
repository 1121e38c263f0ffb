"""CAKE against loops in float64, and what holds of it on every prompt."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from brute_visual import gap, top
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from make_pruning_golden import keys_and_values

from effivlm.compression.base import LayerView
from effivlm.compression.choose import NO_ORDER
from effivlm.methods.cake import Cake
from effivlm.methods.snapkv import SnapKv
from effivlm.records import Budget

few = settings(deadline=None, max_examples=20)
SEEDS = st.integers(0, 10**6)
HEADS = st.sampled_from([(4, 2), (2, 1), (3, 3)])


def layers(seed: int, count: int, heads: tuple[int, int], length: int) -> list[LayerView]:
    marks = torch.ones(length, dtype=torch.bool)
    return [LayerView(*keys_and_values(seed + n, *heads, length, 4), marks, n) for n in range(count)]


def brute(view: LayerView, window: int, gamma: float) -> tuple[float, float, list[Any]]:
    """Entropy, variance, and the scores of the early entries head by head."""
    queries, keys = view.queries.double().numpy(), view.keys.double().numpy()
    length, group = view.length, len(queries) // len(keys)
    early, entropy, variance, scores = length - window, 0.0, 0.0, []
    for head, key in enumerate(keys):
        rows = np.zeros(early)
        for query in queries[head * group : (head + 1) * group]:
            attention = np.zeros((window, length))
            for row in range(window):
                logits = key[: early + row + 1] @ query[early + row] / 2
                powers = np.exp(logits - logits.max())
                attention[row, : early + row + 1] = powers / powers.sum()
            attention = attention[:, :early]
            entropy -= float((attention * np.log(attention + 1e-10)).sum())
            spread = attention.var(0, ddof=1) if window > 1 else np.zeros(early)
            variance += float(spread.sum())
            one = attention.mean(0) + gamma * spread
            rows += np.array([sum(one[max(0, n - 2) : n + 3]) / 5 for n in range(early)]) / group
        scores.append(rows)
    return entropy, variance, scores


@few
@given(SEEDS, HEADS, st.integers(4, 30), st.integers(1, 9), st.sampled_from([0.0, 1.0, 200.0]), st.data())
def test_a_layer_keeps_and_asks_for_what_loops_in_float64_say(seed, heads, length, window, gamma, data) -> None:
    budget = data.draw(st.integers(2, length))
    method = Cake(keep=Budget(Fraction(budget, length)), window=window, gamma=gamma, tau1=1.6, tau2=0.5)
    window = max(1, min(window, budget - 1, length - 1))
    (view,) = layers(seed, 1, heads, length)
    entropy, variance, scores = brute(view, window, gamma)
    assume(all(gap(list(rows)) > 1e-5 * max(1, gamma) for rows in scores))
    expected = [top(rows, budget - window) + list(range(length - window, length)) for rows in scores]
    assert method.select(view, budget, "s").tolist() == expected
    preference = entropy ** (1 / 1.6) * variance ** (1 / 0.5)
    assert method.preferences([view]) == pytest.approx([preference], rel=1e-3, abs=1e-9)


@few
@given(SEEDS, HEADS, st.integers(2, 40), st.integers(1, 6), st.integers(1, 99), st.integers(1, 40))
def test_layers_share_exactly_what_there_is_in_the_order_of_their_preferences(
    seed, heads, length, count, percent, window
) -> None:
    method, views = Cake(keep=Budget(Fraction(percent, 100)), window=window), layers(seed, count, heads, length)
    budgets, preferences = method.budgets(views), method.preferences(views)
    assert sum(budgets) == count * method.keep.of(length)
    assert all(method.held(method.keep.of(length), length) <= budget <= length for budget in budgets)
    order = sorted(range(count), key=lambda layer: preferences[layer])
    assert all(budgets[low] <= budgets[high] + 1 for low, high in pairwise(order))
    for view, budget, layer in zip(views, budgets, method.compress(views, "s"), strict=True):
        assert layer.indices is not None
        assert layer.indices.shape == (heads[1], budget)
        assert torch.equal(layer.keys, view.keys.gather(1, layer.indices[..., None].expand(-1, -1, 4)))


@few
@given(SEEDS, HEADS, st.integers(3, 30), st.integers(1, 4))
def test_uniform_layers_without_variance_are_snapkv(seed, heads, length, count) -> None:
    views, keep = layers(seed, count, heads, length), Budget(Fraction(1, 2))
    window = SnapKv(keep=keep, window=2).held(keep.of(length), length)
    assume(all(gap(list(rows)) > 1e-6 for view in views for rows in brute(view, window, 0)[2]))
    ours = Cake(keep=keep, window=2, gamma=0, layer_budgets="uniform").compress(views, "s")
    theirs = SnapKv(keep=keep, window=2, kernel=5, pool="avg").compress(views, "s")
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one.keys, other.keys)
        assert torch.equal(one.values, other.values)


def test_layers_that_ask_for_nothing_get_equally_much() -> None:
    views = [replace(view, queries=view.queries * 0) for view in layers(0, 3, (2, 1), 12)]
    method = Cake(keep=Budget(Fraction(1, 2)), window=1)
    assert method.preferences(views) == [0, 0, 0], "one row does not vary"
    assert method.budgets(views) == [6, 6, 6]


def test_what_a_layer_showed_with_nan_is_refused() -> None:
    views = layers(0, 2, (2, 1), 12)
    views[1].keys[0, 3] = math.nan
    with pytest.raises(ValueError, match=NO_ORDER):
        Cake(keep=Budget(Fraction(1, 2)), window=2).compress(views, "s")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"tau1": 0.0}, "tau1 0 must be more than 0"),
        ({"tau2": math.inf}, "tau2 inf must be"),
        ({"gamma": -1.0}, "gamma -1 must be at least 0"),
        ({"layer_budgets": "density"}, "layer_budgets 'density' is not one of uniform, preference"),
        ({"window": 0}, "window 0 must be 1 or more"),
    ],
)
def test_what_has_no_meaning_is_refused_by_name(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Cake(**values)
