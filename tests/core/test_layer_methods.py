"""Methods that prune on entry to decoder layers: their choices against float64, their counts, and whole runs against masks."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stages import KEEPS, alike, ranked, softmax_row, stage

from effivlm import registry
from effivlm.compression.base import LayerPart, LayerView, Stage
from effivlm.compression.stages import at_depth, attention_of
from effivlm.methods.dart import Dart
from effivlm.methods.fastv import FastV
from effivlm.methods.pyramiddrop import PyramidDrop
from effivlm.methods.sparsevlm import SparseVlm
from effivlm.records import Budget, Unsupported


def layer_methods() -> list[Any]:
    """Every layer part of the registry under each of its presets."""
    return [
        pytest.param(kind, values, id=f"{name}@{preset}")
        for name in registry.token_methods()
        for kind in [registry.load("methods", name)]
        if issubclass(kind, LayerPart)
        for preset, values in kind.presets.items()
    ]


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(4, 50), st.data())
def test_attention_of_some_rows_is_a_row_by_row_softmax(seed, length, data) -> None:
    held = data.draw(st.integers(1, length))
    rows = data.draw(st.lists(st.integers(length - held, length - 1), min_size=1, max_size=6, unique=True).map(sorted))
    view = stage(seed, length, rows=held).before
    ours = attention_of(view, torch.tensor(rows)).double()
    for place, row in enumerate(rows):
        for head, expected in enumerate(softmax_row(view, row)):
            torch.testing.assert_close(ours[head, place, : row + 1], expected, rtol=0, atol=2e-6)
            assert float(ours[head, place, row + 1 :].sum()) == 0


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(4, 50), st.booleans(), KEEPS)
def test_pyramiddrop_keeps_what_the_last_position_of_the_next_layer_attends_most(seed, length, hollow, keep) -> None:
    drawn = stage(seed, length, hollow=hollow)
    visual = drawn.visual.nonzero()[:, 0].tolist()
    weights = [row.tolist() for row in softmax_row(drawn.ahead(), length - 1)]
    scores = {entry: sum(row[entry] for row in weights) / len(weights) for entry in visual}
    budget = keep.of(len(visual))
    ours = PyramidDrop(keep=keep).select(drawn, budget, "s").kept.tolist()
    assert alike(ours, ranked(scores, budget), scores)


def dart64(drawn: Stage, budget: int, visual_pivots: int, text_pivots: int) -> list[int]:
    norms, hidden = drawn.before.keys.double().abs().sum((0, 2)).tolist(), drawn.normed().double()
    marks = drawn.visual.tolist()
    visual = [entry for entry, mark in enumerate(marks) if mark]
    text = [entry for entry, mark in enumerate(marks) if not mark and entry > visual[0]]
    largest = lambda those, count: sorted(those, key=lambda entry: (-norms[entry], entry))[:count]  # noqa: E731
    first = largest(visual, min(visual_pivots, budget))
    pivots = [*first, *largest(text, text_pivots)]
    left, kept = budget - len(first), set(first)
    for place, pivot in enumerate(pivots):
        share = left // len(pivots) + (place < left % len(pivots))
        cosine = {
            entry: float(torch.cosine_similarity(hidden[entry], hidden[pivot], dim=0))
            for entry in visual
            if entry not in kept
        }
        kept |= set(sorted(cosine, key=lambda entry: (cosine[entry], entry))[:share])
    return sorted(kept)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(4, 50), KEEPS, st.sampled_from([(4, 4), (1, 0), (2, 7)]))
def test_dart_keeps_what_a_brute_force_keeps(seed, length, keep, pivots) -> None:
    drawn = stage(seed, length)
    budget = keep.of(int(drawn.visual.sum()))
    ours = Dart(keep=keep, visual_pivots=pivots[0], text_pivots=pivots[1]).select(drawn, budget, "s").kept.tolist()
    assert ours == dart64(drawn, budget, *pivots)


def facing(cosines: list[float], norms: list[float]) -> Stage:
    """A pivot and visual tokens at these cosines to it, then one text entry; keys of these norms."""
    hidden = torch.tensor([[value, math.sqrt(max(0.0, 1 - value**2))] for value in (*cosines, 1.0)])
    keys = torch.zeros(1, len(hidden), 4)
    keys[0, :, 0] = torch.tensor([*norms, 0.0])
    marks = torch.tensor([*[True] * len(cosines), False])
    view = LayerView(torch.zeros(1, 0, 4), keys, keys, marks, 1)
    return Stage(0, 2, view, hidden, hidden, marks, lambda: view, lambda: hidden, (hidden, hidden))


def test_dart_worked_example_takes_what_is_least_like_the_pivot() -> None:
    drawn = facing([1.0, 0.994, 0.0, -1.0, 0.707, 0.217], [9.0, 1, 1, 1, 1, 1])
    method = Dart(keep=Budget.parse("0.5"), visual_pivots=1, text_pivots=0)
    assert method.select(drawn, 3, "s").kept.tolist() == [0, 2, 3]
    twin = facing([1.0, 1.0, 0.9, 0.8], [9.0, 1, 1, 1])
    assert method.select(twin, 3, "s").kept.tolist() == [0, 2, 3], "a duplicate of the pivot goes last"
    norms = facing([1.0, 0.9, 0.8, 0.7], [1.0, 3, 2, 4])
    assert Dart(visual_pivots=2, text_pivots=0).select(norms, 2, "s").kept.tolist() == [1, 3], "pivots alone are norms"


@pytest.mark.parametrize(("kind", "values"), layer_methods())
@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6), length=st.integers(3, 60), hollow=st.booleans(), equal=st.booleans(), data=st.data())
def test_layer_methods_keep_exactly_the_budget_in_order(kind, values, seed, length, hollow, equal, data) -> None:
    method = kind(keep=Budget.parse("0.5"), **values)
    drawn = stage(seed, length, hollow=hollow)
    if equal:  # nothing tells entries apart: every score ties, every token is a duplicate
        same = LayerView(
            *(torch.ones_like(part) for part in (drawn.before.queries, drawn.before.keys)),
            drawn.before.values,
            drawn.visual,
            1,
        )
        hidden, embeds = torch.ones_like(drawn.hidden), torch.ones_like(drawn.embeds)
        drawn = replace(drawn, before=same, hidden=hidden, embeds=embeds, ahead=lambda: same, normed=lambda: hidden)
    visual = drawn.visual.nonzero()[:, 0].tolist()
    budget = data.draw(st.integers(1, len(visual)))
    chosen = method.select(drawn, budget, "s")
    kept = chosen.kept.tolist()
    assert len(kept) == budget
    assert kept == sorted(set(kept))
    assert set(kept) <= set(visual), "text is never chosen, and never lost"
    assert chosen.features is None or bool(chosen.features.isfinite().all())
    if equal and chosen.features is None and kind in (FastV, PyramidDrop):
        assert kept == visual[:budget], "ties go to the earlier token"


@pytest.mark.parametrize(("kind", "values"), layer_methods())
@settings(deadline=None, max_examples=30)
@given(visual=st.integers(1, 3000), depth=st.sampled_from([4, 8, 28, 32, 64]), keep=KEEPS)
def test_counts_meet_the_budget_and_never_grow(kind, values, visual, depth, keep) -> None:
    method = kind(keep=keep, **values)
    stages = method.stages(depth)
    asked = keep.keep * visual
    least = Fraction(stages[0] * visual + depth - stages[0], depth)  # one token after each stage
    if method.layer_mean and least > asked + Fraction(1, 2):
        with pytest.raises(Unsupported, match=f"keep {keep.label} of {visual} visual tokens cannot be the mean"):
            method.budgets(visual, depth)
        counts = kind(keep=Budget(Fraction(1)), **values).budgets(visual, depth)
        assert counts == (visual,) * len(stages), "there is always a budget that fits"
        return
    counts = method.budgets(visual, depth)
    assert list(counts) == sorted(counts, reverse=True)
    assert 1 <= counts[-1] <= counts[0] <= visual
    spans = [after - at for at, after in pairwise((*stages, depth))]
    mean = Fraction(stages[0] * visual + sum(span * count for span, count in zip(spans, counts, strict=True)), depth)
    if method.layer_mean:
        assert abs(mean - asked) <= Fraction(1, 2)
    else:
        assert counts[-1] == keep.of(visual)


@pytest.mark.parametrize(
    ("method", "depth", "visual", "counts"),
    [
        (PyramidDrop(keep=Budget.parse("0.46875")), 32, 576, (288, 144, 72)),
        (PyramidDrop(keep=Budget.parse("0.125"), budget_scope="final"), 32, 576, (288, 144, 72)),
        (FastV(keep=Budget.parse("0.4"), budget_scope="average"), 28, 1000, (354,)),
        (FastV(keep=Budget.parse("0.1"), budget_scope="average"), 28, 1000, (31,)),
        (FastV(keep=Budget.parse("0.2")), 28, 1000, (200,)),
        # (3 * 576 + 4 * 300 + 9 * 200 + 16 * 110) / 32 = 202.75 of 576
        (SparseVlm(keep=Budget(Fraction(811, 4 * 576))), 32, 576, (300, 200, 110)),
    ],
)
def test_worked_examples_of_counts(method: LayerPart, depth: int, visual: int, counts: tuple[int, ...]) -> None:
    assert method.budgets(visual, depth) == counts


@pytest.mark.parametrize(
    ("method", "depth", "stages"),
    [
        (PyramidDrop(), 32, (8, 16, 24)),
        (PyramidDrop(), 28, (7, 14, 21)),
        (PyramidDrop(), 8, (2, 4, 6)),
        (PyramidDrop(segments=2), 4, (2,)),
        (SparseVlm(), 32, (3, 7, 16)),
        (SparseVlm(), 28, (3, 6, 14)),
        (SparseVlm(), 8, (2, 3, 5)),
        (SparseVlm(), 4, (1, 2, 3)),
        (Dart(), 4, (2,)),
    ],
)
def test_stages_scale_with_the_depth(method: LayerPart, depth: int, stages: tuple[int, ...]) -> None:
    assert method.stages(depth) == stages


@pytest.mark.parametrize(
    "method", [PyramidDrop(segments=5), SparseVlm(layers=(2, 3), counts=(2, 1)), Dart(layer=4), FastV(layer=9)]
)
def test_a_decoder_without_such_layers_is_refused(method: LayerPart) -> None:
    with pytest.raises(Unsupported, match=r"fall on layers|does not exist"):
        method.stages(4)
    assert at_depth((2, 6, 15), 32, 32) == (2, 6, 15)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PyramidDrop(segments=1), "segments 1 must be 2 or more"),
        (lambda: PyramidDrop(budget_scope="post"), "budget_scope 'post' is not one of average, final"),
        (lambda: FastV(budget_scope="final"), "budget_scope 'final' is not one of post, average"),
        (lambda: Dart(layer=0), "layer 0 cannot prune"),
        (lambda: Dart(visual_pivots=0), "visual_pivots 0 must be 1 or more"),
        (lambda: SparseVlm(counts=(1, 2, 3)), r"counts \(1, 2, 3\) must be 1 or more and must not grow"),
        (lambda: SparseVlm(layers=()), r"layers \(\) and counts .* equally many"),
        (lambda: SparseVlm(head_share=0.0), r"head_share 0.0 must lie in \(0, 1\]"),
        (lambda: SparseVlm(recycled_share=2.0), r"recycled_share 2.0 must lie in \(0, 1\]"),
    ],
)
def test_impossible_hyper_parameters_are_refused_with_their_value(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
