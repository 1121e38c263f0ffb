"""Every method against a brute force in float64, and the properties that hold for any shape and budget."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from brute_rotary import turning
from hypothesis import given, settings
from hypothesis import strategies as st

from effivlm import registry
from effivlm.compression.attention import per_kv_head, pooled
from effivlm.compression.base import CachePart, ImageView, LayerView, Stage, VisualPart, generator
from effivlm.compression.budget import apportion
from effivlm.compression.choose import best
from effivlm.methods.downsample import Downsample
from effivlm.methods.fastv import FastV
from effivlm.methods.random_kv import RandomKv
from effivlm.methods.random_visual import RandomVisual
from effivlm.methods.snapkv import SnapKv
from effivlm.methods.streaming_llm import StreamingLlm
from effivlm.records import Budget
from effivlm.seams.columns import column_sums, row_attention
from effivlm.seams.hooks import Tower

KEEPS = st.fractions(min_value=Fraction(1, 100), max_value=1, max_denominator=100).map(Budget)
CACHE = [SnapKv, StreamingLlm, RandomKv]


def parts(kind: type):
    """Every method of the registry under each of its presets, at one seam."""
    return [
        pytest.param(cls, values, id=f"{name}@{preset}")
        for name in registry.token_methods()
        for cls in [registry.load("methods", name)]
        for preset, values in cls.presets.items()  # type: ignore[attr-defined]
        if any(isinstance(part, kind) for part in cls(keep=Budget.parse("0.5"), **values).parts)
    ]


def view(seed: int, length: int, heads: int = 4, kv_heads: int = 2, rows: int | None = None, dim: int = 8) -> LayerView:
    rng = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=rng) * 2  # noqa: E731
    queries = draw(heads, length, dim)[:, length - (rows or length) :]
    visual = torch.rand(length, generator=rng) < 0.6
    visual[0] = True
    return LayerView(queries, draw(kv_heads, length, dim), draw(kv_heads, length, dim), visual, layer=1)


def asked(shown: LayerView, method: CachePart) -> LayerView:
    """What a prefill would show `method` of a layer of which everything is known: its rows, and sums and moments where wanted."""
    rows = method.rows(shown.visual)
    sums = column_sums(shown.queries, shown.keys) if method.columns else None
    asked_for = replace(shown, queries=shown.queries[:, shown.length - rows :], received=sums)
    return replace(asked_for, **turning(shown, method.moments_from(shown.length)))


def staged(shown: LayerView) -> Stage:
    """A stage behind a layer that showed this; hidden states and embeddings are not looked at."""
    nothing = torch.zeros(shown.length, 4)
    return Stage(
        0, shown.layer + 1, shown, nothing, nothing, shown.visual, lambda: shown, lambda: nothing, (nothing, nothing)
    )


def attention64(shown: LayerView) -> torch.Tensor:
    """Softmax attention [H_q, W, N], row by row in float64."""
    queries, keys = shown.queries.double(), shown.keys.double()
    heads, rows, dim = queries.shape
    result = torch.zeros(heads, rows, shown.length, dtype=torch.float64)
    for head in range(heads):
        for row in range(rows):
            seen = shown.length - rows + row + 1
            key = keys[head * len(keys) // heads, :seen]
            result[head, row, :seen] = torch.softmax(key @ queries[head, row] / math.sqrt(dim), -1)
    return result


def top(scores: list[float], count: int) -> list[int]:
    return sorted(sorted(range(len(scores)), key=lambda index: (-scores[index], index))[:count])


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 60), st.sampled_from([(4, 2), (6, 2), (3, 3), (8, 1)]), st.data())
def test_row_attention_and_column_sums_equal_a_row_by_row_softmax(seed, length, heads, data) -> None:
    rows = data.draw(st.integers(1, length))
    shown = view(seed, length, *heads, rows=rows)
    expected = attention64(shown)
    torch.testing.assert_close(row_attention(shown.queries, shown.keys).double(), expected, rtol=0, atol=2e-6)
    torch.testing.assert_close(
        column_sums(shown.queries, shown.keys).double() / rows, expected.mean(1), rtol=0, atol=2e-6
    )


def brute_pool(scores: list[float], kernel: int, kind: str) -> list[float]:
    half, count = kernel // 2, len(scores)
    spans = [[scores[j] for j in range(i - half, i + half + 1) if 0 <= j < count] for i in range(count)]
    return [max(span) if kind == "max" else sum(span) / kernel for span in spans]


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 10**6),
    st.integers(3, 70),
    KEEPS,
    st.integers(1, 40),
    st.sampled_from([1, 3, 5, 7]),
    st.sampled_from(["avg", "max"]),
    st.sampled_from([(4, 2), (6, 3), (5, 1)]),
)
def test_snapkv_keeps_what_a_brute_force_keeps(seed, length, keep, window, kernel, pool, heads) -> None:
    method = SnapKv(keep=keep, window=window, kernel=kernel, pool=pool)
    budget = keep.of(length)
    rows = method.rows(torch.ones(length, dtype=torch.bool))
    shown = view(seed, length, *heads, rows=rows)
    ours = method.select(shown, budget, "s")
    attention = attention64(shown)
    w = max(1, min(window, budget - 1, length - 1))
    assert rows == w
    early = length - w
    for head in range(heads[1]):
        group = attention.unflatten(0, (heads[1], -1))[head].mean(0)[:, :early].sum(0).tolist()
        scores = brute_pool(group, kernel, pool)
        kept = ours[head].tolist()
        expected = top(scores, max(0, budget - w)) + list(range(length - min(w, budget), length))
        if kept != expected:  # float32 may swap two that are equal to its precision
            swapped = set(kept) ^ set(expected)
            assert max(scores[i] for i in swapped) - min(scores[i] for i in swapped) < 1e-6
        assert len(kept) == budget


def test_snapkv_worked_example_of_average_pooling_damps_the_border() -> None:
    scores = torch.tensor([[0, 0, 1.0, 0, 0, 0, 0.9]])
    smooth = pooled(scores, 3, "avg")
    torch.testing.assert_close(smooth, torch.tensor([[0, 1 / 3, 1 / 3, 1 / 3, 0, 0.3, 0.3]]))
    assert best(smooth, 3).tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(
    ("preset", "expected"),
    [("paper", [0, 1, 2, 3, 14, 15, 16, 17, 18, 19]), ("effivlm", [0, 1, 2, 3, 4, 5, 6, 7, 8, 19])],
)
def test_streaming_llm_worked_example(preset: str, expected: list[int]) -> None:
    method = StreamingLlm(keep=Budget.parse("0.5"), **StreamingLlm.presets[preset])
    assert method.select(view(0, 20), 10, "s").tolist() == [expected] * 2


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(4, 60), KEEPS, st.sampled_from(["last", "all"]))
def test_fastv_keeps_what_a_brute_force_keeps(seed, length, keep, query_rows) -> None:
    method = FastV(keep=keep, query_rows=query_rows)
    shown = view(seed, length, rows=method.rows(torch.ones(length, dtype=torch.bool)))
    visual = shown.visual.nonzero()[:, 0].tolist()
    budget = keep.of(len(visual))
    attention = attention64(shown)
    rows = attention[:, -1] if query_rows == "last" else attention.mean(1)
    scores = rows.mean(0)[visual].tolist()
    kept = method.select(staged(shown), budget, "s").kept.tolist()
    expected = [visual[index] for index in top(scores, budget)]
    if kept != expected:
        swapped = [scores[visual.index(token)] for token in set(kept) ^ set(expected)]
        assert max(swapped) - min(swapped) < 1e-6
    assert len(kept) == budget


@pytest.mark.parametrize(("kind", "values"), parts(CachePart))
@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 10**6), length=st.integers(2, 90), keep=KEEPS, heads=st.sampled_from([(4, 2), (3, 3), (6, 1)])
)
def test_cache_methods_keep_exactly_the_budget_in_order(kind, values, seed, length, keep, heads) -> None:
    method = kind(keep=keep, **values)
    views = [asked(view(seed + layer, length, *heads), method) for layer in range(3)]
    if getattr(method, "merge", "none") != "none":  # merging changes no count and no place
        merged = method.compress(views, "s")
        method = replace(method, merge="none")
        assert [layer.kept for layer in merged] == [layer.kept for layer in method.compress(views, "s")]
    cache = method.compress(views, "s")
    total = sum(layer.kept for layer in cache)
    assert total == 3 * keep.of(length)
    assert abs(round(total) - keep.keep * 3 * length) <= 3, "within one token per layer of what was asked"
    for layer, shown in zip(cache, views, strict=True):
        assert layer.nbytes == layer.kept * heads[1] * 8 * 4 * 2
        for head in range(heads[1]):
            count = layer.lengths[head] if layer.lengths else layer.keys.shape[1]
            places = [int((shown.keys[head] == row).all(1).nonzero()[0, 0]) for row in layer.keys[head, :count]]
            assert places == sorted(set(places)), "entries keep their order and stand once"
            assert torch.equal(shown.values[head, places], layer.values[head, :count])


@pytest.mark.parametrize(("kind", "values"), parts(VisualPart))
@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    shapes=st.lists(
        st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6), st.booleans()), min_size=1, max_size=3
    ),
    keep=KEEPS,
)
def test_visual_methods_keep_exactly_the_budget_in_order(kind, values, seed, shapes, keep) -> None:
    (part,) = kind(keep=keep, **values).parts or (None,)
    if part is None:
        assert keep.keep == 1
        return
    places, features = grids(shapes), []
    for number, place in enumerate(places):
        features.append(torch.randn(len(place), 5, generator=torch.Generator().manual_seed(seed + number)))
    asked = torch.randn(3, 5, generator=torch.Generator().manual_seed(seed))
    pairs = zip(features, places, strict=True)
    views = [ImageView(feature, place, tower(seed, place), asked) for feature, place in pairs]
    chosen = part.select(views, "s")
    total = sum(len(place) for place in places)
    real = sum(int((place[:, 0] >= 0).sum()) for place in places)
    assert sum(len(selection.kept) for selection in chosen) == min(keep.of(total), real)
    for selection, place in zip(chosen, places, strict=True):
        kept = selection.kept.tolist()
        assert kept == sorted(set(kept))
        assert all(place[token, 0] >= 0 for token in kept), "a newline marker shows nothing"
        assert selection.features is None or len(selection.features) == len(kept)


def tower(seed: int, places: torch.Tensor) -> Tower:
    """What a tower of two heads might have shown; markers hold zeros."""
    rng, real = torch.Generator().manual_seed(seed), places[:, :1] >= 0
    received, single = (torch.rand(len(places), 2, generator=rng) * real).T
    return Tower(received, single, torch.randn(len(places), 2, 4, generator=rng) * real[..., None])


def grids(shapes: list[tuple[int, int, int, bool]]) -> list[torch.Tensor]:
    """Places of images: blocks x rows x columns, with a marker after the last token where asked."""
    made = []
    for blocks, rows, columns, marker in shapes:
        grid = torch.cartesian_prod(torch.arange(blocks), torch.arange(rows), torch.arange(columns)).reshape(-1, 3)
        made.append(torch.cat([grid, torch.full((1, 3), -1)]) if marker else grid)
    return made


@pytest.mark.parametrize("keep", ["0.01", "0.05", "0.25", "0.4", "0.9"])
def test_pooled_features_are_means_of_cells_that_cover_the_image_once(keep: str) -> None:
    (place,) = grids([(1, 24, 24, False)])
    (part,) = Downsample(keep=Budget.parse(keep), mode="feature").parts
    one_hot = torch.eye(len(place))
    (selection,) = part.select([ImageView(one_hot, place)], "s")
    weights = selection.features
    torch.testing.assert_close(weights.sum(1), torch.ones(len(weights)))
    assert bool(((weights > 0).sum(0) == 1).all()), "every token goes into one cell"
    sizes = (weights > 0).sum(1)
    assert sizes.max() <= 4 * max(1, sizes.min()), "cells are alike"
    for row, kept in zip(weights, selection.kept.tolist(), strict=True):
        assert row[kept] > 0, "a mean stands inside its cell"


def test_random_methods_draw_the_same_again_and_another_set_for_another_seed_or_sample() -> None:
    shown, budget = view(1, 80), 16
    draw = lambda seed, name: RandomKv(keep=Budget.parse("0.2"), seed=seed).select(shown, budget, name)  # noqa: E731
    assert torch.equal(draw(0, "a"), draw(0, "a"))
    assert not torch.equal(draw(0, "a"), draw(1, "a"))
    assert not torch.equal(draw(0, "a"), draw(0, "b"))
    assert not torch.equal(draw(0, "a")[0], draw(0, "a")[1]), "heads draw on their own"


def test_random_visual_draws_every_token_equally_often() -> None:
    (place,) = grids([(1, 5, 8, True)])
    counts = torch.zeros(len(place))
    for seed in range(600):
        (selection,) = RandomVisual(keep=Budget.parse("0.25"), seed=seed).select(
            [ImageView(torch.zeros(41, 2), place)], "s"
        )
        counts[selection.kept] += 1
    assert counts[-1] == 0
    expected = 600 * 10 / 40
    assert (
        float(((counts[:-1] - expected) ** 2 / expected).sum()) < 80
    )  # chi-square, 39 degrees of freedom, p about 1e-4


def test_scores_with_nan_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        best(torch.tensor([1.0, float("nan")]), 1)


def test_ties_go_to_the_lower_position() -> None:
    assert best(torch.tensor([[1.0, 1, 1, 2]]), 3).tolist() == [[0, 1, 3]]
    assert generator(0, "x").initial_seed() == generator(0, "x").initial_seed() != generator(0, "y").initial_seed()


def test_query_heads_of_one_kv_head_are_averaged() -> None:
    scores = torch.tensor([[1.0], [3.0], [10.0], [20.0]])
    assert per_kv_head(scores, 2).tolist() == [[2.0], [15.0]]


@pytest.mark.parametrize(
    ("weights", "total", "high", "expected"),
    [
        ((3, 2, 1), 7, None, [4, 2, 1]),
        ((3, 2, 1), 7, [3, 9, 9], [3, 3, 1]),
        ((Fraction(9, 10), Fraction(1, 20), Fraction(1, 20)), 150, 100, [100, 25, 25]),
        ((1, 0), 5, [3, 9], [3, 2]),
    ],
)
def test_apportion_worked_examples(weights, total, high, expected) -> None:
    assert apportion(weights, total, high=high) == expected


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(0, 5), st.integers(0, 40)), min_size=1, max_size=8), st.data()
)
def test_apportion_is_exact_within_bounds_and_never_a_whole_entry_off(rows, data) -> None:
    weights, low = [row[0] for row in rows], [row[1] for row in rows]
    high = [row[1] + row[2] for row in rows]
    total = data.draw(st.integers(sum(low), sum(high)))
    shares = apportion(weights, total, low, high)
    assert sum(shares) == total
    assert all(a <= share <= b for a, share, b in zip(low, shares, high, strict=True))
    inner = [(share / w) for w, a, share, b in zip(weights, low, shares, high, strict=True) if a + 1 < share < b - 1]
    for level in inner:  # all unclipped shares follow one level, to within one entry each
        assert all(
            abs(level * w - share) < 2 + w / min(weights)
            for w, a, share, b in zip(weights, low, shares, high, strict=True)
            if a + 1 < share < b - 1
        )


@pytest.mark.parametrize(("total", "low", "high"), [(3, 2, None), (9, 0, 4), (-1, 0, None)])
def test_apportion_refuses_what_cannot_be(total: int, low: int, high: int | None) -> None:
    with pytest.raises(ValueError, match="cannot be split"):
        apportion([1, 1], total, low, high)


@pytest.mark.parametrize(
    "make",
    [
        lambda: SnapKv(kernel=4),
        lambda: SnapKv(window=0),
        lambda: FastV(layer=0),
        lambda: FastV(query_rows="some"),
        lambda: Downsample(keep=Budget.parse("0.5"), mode="blur").parts,
        lambda: pooled(torch.zeros(1, 4), 3, "sum"),
    ],
)
def test_impossible_hyper_parameters_are_refused_with_their_value(make) -> None:
    with pytest.raises(ValueError, match=r"4|0|'some'|'blur'|'sum'"):
        make()
