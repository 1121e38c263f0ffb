"""Choosing the highest scores without a sort: what a stable sort would choose."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from effivlm.compression.choose import best, best_of_each, doubting, refuse


@settings(deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=40), st.integers(1, 3), st.integers(0, 9), st.data())
def test_the_best_are_those_of_a_stable_sort_whatever_is_equal_or_infinite(drawn, heads, seed, data) -> None:
    scores = torch.tensor(drawn, dtype=torch.float32).repeat(2, heads, 1)
    scores = scores.masked_fill(scores == 3, torch.inf).masked_fill(scores == -3, -torch.inf)
    scores = torch.stack([torch.stack([row.roll(seed * at) for at, row in enumerate(layer)]) for layer in scores])
    counts = [data.draw(st.integers(0, len(drawn))) for _ in scores]
    order = scores.sort(dim=-1, descending=True, stable=True).indices
    for ours, row, count in zip(best_of_each(scores, counts), order, counts, strict=True):
        assert torch.equal(ours, row[:, :count].sort(dim=-1).values)


def test_scores_without_an_order_are_refused_at_once_or_when_somebody_asks() -> None:
    scores, order = torch.tensor([0.0, torch.nan, 1.0]), torch.tensor([2.0, 3.0])
    with pytest.raises(ValueError, match="scores hold NaN"):
        best(scores, 1)
    with doubting() as bad:
        best(order, 1)
        best(scores, 1)
    with doubting() as good:
        assert best(order, 1).tolist() == [1]
    with pytest.raises(ZeroDivisionError), doubting():
        best(scores, 1 // 0)
    with pytest.raises(ValueError, match="scores hold NaN"):
        best(scores, 1)
    assert [error is None for error in refuse(good, bad, [], bad)] == [True, False, True, False]
    assert "scores hold NaN" in str(refuse(bad)[0])
    assert refuse() == []
