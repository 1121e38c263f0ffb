"""Cache methods against their formulas written out in float64, and what holds for all of them."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
import torch
from brute_rotary import expected64
from forms import sample
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import everything, logits
from test_methods import asked, attention64, brute_pool, parts, top, view
from test_oracle import CLOSE, TOKENS

from effivlm import registry
from effivlm.compression.base import CachePart, LayerView
from effivlm.decoding.caches import KeptLayer
from effivlm.decoding.eager import Start, forced
from effivlm.methods.adakv import AdaKv
from effivlm.methods.expected_attention import ExpectedAttention
from effivlm.methods.h2o import H2o
from effivlm.methods.look_m import LookM
from effivlm.methods.random_kv import RandomKv
from effivlm.methods.snapkv import SnapKv
from effivlm.methods.streaming_llm import StreamingLlm
from effivlm.methods.tova import Tova
from effivlm.methods.vl_cache import VlCache
from effivlm.models._adapter import Adapter
from effivlm.records import Budget
from effivlm.run.tree import Tree

KEEPS = st.fractions(min_value=Fraction(1, 100), max_value=Fraction(99, 100), max_denominator=100).map(Budget)
HEADS = st.sampled_from([(4, 2), (6, 3), (5, 1), (8, 2), (3, 3)])
Scores = list[list[float]]


def rows_of(layer: KeptLayer) -> list[list[int]]:
    """Kept entries of each head."""
    assert layer.indices is not None
    lengths = layer.lengths or [layer.indices.shape[1]] * len(layer.indices)
    return [row[:count].tolist() for row, count in zip(layer.indices, lengths, strict=True)]


def same_but_for_rounding(kept: list[int], expected: list[int], scores: list[float]) -> bool:
    """Float32 may swap entries whose scores are equal to its precision."""
    swapped = [scores[place] for place in set(kept) ^ set(expected)]
    return len(kept) == len(expected) and (
        not swapped or max(swapped) - min(swapped) < 2e-6 * max(1, *map(abs, swapped))
    )


def grouped(attention: torch.Tensor, kv_heads: int) -> Scores:
    """Attention [H_q, W, N] summed over rows, mean over the query heads of a KV head."""
    return [
        torch.stack(
            [attention[head].sum(0) for head in range(len(attention)) if head * kv_heads // len(attention) == kv]
        )
        .mean(0)
        .tolist()
        for kv in range(kv_heads)
    ]


def h2o64(shown: LayerView) -> Scores:
    return grouped(attention64(shown), len(shown.keys))


def look_m64(shown: LayerView) -> Scores:
    return [
        [score + (0 if image else max(row)) for score, image in zip(row, shown.visual.tolist(), strict=True)]
        for row in h2o64(shown)
    ]


def vl_cache64(shown: LayerView) -> Scores:
    last = max(place for place, image in enumerate(shown.visual.tolist()) if image)
    first = last + 1 if last + 1 < shown.length else max(0, shown.length - 32)
    return grouped(attention64(shown)[:, first:], len(shown.keys))


def tova64(shown: LayerView) -> Scores:
    return [attention64(shown)[:, -1].mean(0).tolist()] * len(shown.keys)


FORMULAS: dict[str, tuple[type[Any], Any, Any]] = {
    "h2o": (H2o, h2o64, lambda keep: keep // 2),
    "look_m": (LookM, look_m64, lambda keep: keep // 2),
    "vl_cache": (VlCache, vl_cache64, lambda keep: keep // 10),
    "tova": (Tova, tova64, lambda keep: 0),
    "expected_attention": (ExpectedAttention, expected64, lambda keep: 0),
}


@pytest.mark.parametrize("name", FORMULAS)
@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), length=st.integers(2, 75), keep=KEEPS, heads=HEADS)
def test_entries_kept_are_those_of_the_formula(name, seed, length, keep, heads) -> None:
    kind, formula, window_of = FORMULAS[name]
    method, whole = kind(keep=keep), view(seed, length, *heads)
    budget = keep.of(length)
    window = window_of(budget)
    layer = method.layer(asked(whole, method), budget, "s")
    for kept, scores in zip(rows_of(layer), formula(whole), strict=True):
        expected = top(scores[: length - window], budget - window) + list(range(length - window, length))
        assert same_but_for_rounding(kept, expected, scores)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(3, 75), KEEPS, HEADS, st.sampled_from([0, 0.2, 0.5, 1]), st.integers(1, 40))
def test_adakv_keeps_what_its_formula_keeps(seed, length, keep, heads, alpha, window) -> None:
    method, whole, budget = AdaKv(keep=keep, alpha=alpha, window=window), view(seed, length, *heads), keep.of(length)
    window = max(1, min(window, budget - 1, length - 1))
    scores = [
        brute_pool(row[: length - window], 7, "max")
        for row in grouped(attention64(whole)[:, -window:], len(whole.keys))
    ]
    every = sorted(((-score, head) for head, row in enumerate(scores) for score in row))[
        : len(scores) * (budget - window)
    ]
    ideal = [
        (1 - Fraction(str(alpha))) * sum(owner == head for _, owner in every) + Fraction(str(alpha)) * (budget - window)
        for head in range(len(scores))
    ]
    found = rows_of(method.layer(asked(whole, method), budget, "s"))
    counts = [len(row) - window for row in found]
    edge = abs(every[-1][0]) if every else 0  # as many as are equal there may change heads
    ties = sum(abs(score - edge) < 1e-6 for row in scores for score in row)
    assert sum(counts) == len(scores) * (budget - window)
    assert all(abs(count - wanted) < 1 + max(0, ties - 1) for count, wanted in zip(counts, ideal, strict=True))
    for kept, row, count in zip(found, scores, counts, strict=True):
        assert same_but_for_rounding(
            kept, top(row, count) + list(range(length - window, length)), [*row, *[0] * window]
        )


def test_h2o_worked_example_keeps_the_first_and_the_last() -> None:
    attention = torch.tensor([[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0.2, 0.3, 0.5, 0], [0.1, 0.2, 0.3, 0.4]])
    shown = replace(view(0, 4, 1, 1), received=attention.sum(0)[None])
    assert H2o(keep=Budget.parse("0.5")).select(shown, 2, "s").tolist() == [[0, 3]]


def test_adakv_worked_example_moves_budget_to_the_head_that_looks_around() -> None:
    scores = torch.tensor([[0.9, 0.05, 0.05, 0], [0.3, 0.3, 0.2, 0.2]])
    assert AdaKv(alpha=0.2).shares(scores[None], 2) == [[1, 3]]
    assert AdaKv(alpha=0.0).shares(scores[None], 2) == [[1, 3]]
    assert AdaKv(alpha=1.0).shares(scores[None], 2) == [[2, 2]]
    assert AdaKv(alpha=1.0, floor="lower_bound").shares(scores[None], 2) == [[2, 2]]


@pytest.mark.parametrize("keep", ["0.03", "0.2", "0.7"])
def test_adakv_keeps_of_layers_together_what_it_keeps_of_each_alone(keep: str) -> None:
    method, marks = AdaKv(keep=Budget.parse(keep), window=4), view(0, 60).visual
    views = [asked(replace(view(layer, 60), visual=marks), method) for layer in range(3)]
    views = [replace(one, visual=marks) for one in views]
    together = method.compress(views, "s")
    for one, layer in zip(views, together, strict=True):
        (alone,) = method.compress([one], "s")
        assert layer.lengths == alone.lengths
        assert torch.equal(layer.keys, alone.keys)
        assert layer.indices is not None
        assert torch.equal(layer.indices, alone.indices)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(2, 30), st.data())
def test_adakv_loses_no_more_score_than_equal_heads_and_holds_its_safeguard(seed, heads, early, data) -> None:
    scores = torch.rand(heads, early, generator=torch.Generator().manual_seed(seed)) ** 4
    equal, order = data.draw(st.integers(0, early)), torch.randperm(heads)
    mass = lambda counts: sum(float(row.topk(count).values.sum()) for row, count in zip(scores, counts, strict=True))  # noqa: E731
    assert mass(AdaKv(alpha=0.0).shares(scores[None], equal)[0]) >= mass([equal] * heads) - 1e-5
    for floor in ("convex", "lower_bound"):
        (counts,) = AdaKv(alpha=0.5, floor=floor).shares(scores[None], equal)
        assert sum(counts) == heads * equal
        assert min(counts) >= equal // 2
        if floor == "lower_bound":
            assert AdaKv(alpha=0.5, floor=floor).shares(scores[None, order], equal) == [
                [counts[head] for head in order]
            ]
    (same,) = AdaKv(alpha=0.0).shares(scores[None, :1].expand(-1, heads, -1), equal)
    assert max(same) - min(same) <= 1


def test_adakv_with_a_full_safeguard_keeps_what_snapkv_keeps() -> None:
    keep = Budget.parse("0.3")
    shown = asked(view(5, 60), SnapKv(keep=keep, window=6))
    expected = SnapKv(keep=keep, window=6).select(shown, 18, "s").tolist()
    assert rows_of(AdaKv(keep=keep, window=6, alpha=1.0).layer(shown, 18, "s")) == expected
    assert rows_of(AdaKv(keep=keep, window=6, alpha=0.0).layer(shown, 18, "s")) != expected


@pytest.mark.parametrize(("kind", "values"), parts(CachePart))
@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 10**6), length=st.integers(2, 40), keep=KEEPS)
def test_rows_that_others_asked_for_change_nothing(kind, values, seed, length, keep) -> None:
    method = kind(keep=keep, **values)
    narrow = [asked(view(seed + layer, length), method) for layer in range(2)]
    wide = [replace(one, queries=view(seed + layer, length).queries) for layer, one in enumerate(narrow)]
    for ours, theirs in zip(method.compress(narrow, "s"), method.compress(wide, "s"), strict=True):
        assert rows_of(ours) == rows_of(theirs)
        assert torch.equal(ours.keys, theirs.keys)


def extreme(kind: str, length: int, seed: int) -> LayerView:
    """Prompts of which nothing typical holds."""
    shown = view(seed, length)
    keys, visual = shown.keys.clone(), shown.visual.clone()
    if kind == "ties":
        keys[:] = keys[:, :1]
    elif kind == "one token takes all":
        keys[:, length // 2] = shown.queries[0, -1] * 1e3
    elif kind == "zeros":
        return replace(shown, keys=keys * 0, queries=shown.queries * 0, values=shown.values * 0)
    elif kind == "one visual":
        visual[:], visual[length // 3] = False, True
    elif kind == "text":
        visual[:] = False
    elif kind == "image last":
        visual[-1] = True
    return replace(shown, keys=keys, visual=visual)


@pytest.mark.parametrize("form", ["ties", "one token takes all", "zeros", "one visual", "text", "image last"])
@pytest.mark.parametrize(("kind", "values"), parts(CachePart))
def test_degenerate_prompts_give_exact_counts_and_no_nan(kind, values, form) -> None:
    for length in (2, 3, 9, 41):
        for text in ("0.01", "0.1", "0.5", "0.9"):
            method = kind(keep=Budget.parse(text), **values)
            views = [asked(extreme(form, length, seed), method) for seed in range(3)]
            layers = method.compress(views, "s")
            assert sum(layer.kept for layer in layers) == 3 * method.keep.of(length)
            for layer in layers:
                assert not layer.keys.isnan().any()
                assert not layer.values.isnan().any()
                assert all(row == sorted(set(row)) and row[-1] < length for row in rows_of(layer))


def test_ties_go_to_the_first_entries() -> None:
    for kind in (Tova, ExpectedAttention):
        method = kind(keep=Budget.parse("0.3"))
        shown = replace(asked(extreme("ties", 20, 1), method), values=torch.ones(2, 20, 8))
        assert rows_of(method.layer(shown, 6, "s")) == [[0, 1, 2, 3, 4, 5]] * 2


NESTED = [
    H2o(window_share=0.0, window=3),
    LookM(window_share=0.0, window=3),
    VlCache(layer_budgets="uniform", window_share=0.0),
    Tova(),
    ExpectedAttention(),
    StreamingLlm(),
    RandomKv(window=2),
]


@pytest.mark.parametrize("method", NESTED, ids=lambda method: type(method).__name__)
def test_a_larger_budget_keeps_what_a_smaller_one_kept(method: CachePart) -> None:
    shown = asked(view(9, 50), replace(method, keep=Budget.parse("0.5")))
    kept = [rows_of(method.layer(shown, budget, "s")) for budget in range(5, 50)]
    for smaller, larger in pairwise(kept):
        assert all(set(few) < set(many) for few, many in zip(smaller, larger, strict=True))


@pytest.mark.parametrize("scale", [1e-3, 1e3])
@pytest.mark.parametrize("kind", [H2o, LookM])
def test_scores_times_a_constant_keep_the_same(kind: type[Any], scale: float) -> None:
    method = kind(keep=Budget.parse("0.3"))
    shown = asked(view(2, 60), method)
    assert shown.received is not None
    scaled = replace(shown, received=shown.received * scale)
    assert torch.equal(method.select(shown, 18, "s"), method.select(scaled, 18, "s"))


@pytest.mark.parametrize("kind", [SnapKv, H2o, VlCache, ExpectedAttention])
def test_shared_heads_keep_the_best_of_their_mean(kind: type[Any]) -> None:
    own, shared = kind(keep=Budget.parse("0.2")), kind(keep=Budget.parse("0.2"), head_shared=True, kernel=1)
    shown = asked(view(4, 60), own)
    rows = shared.select(shown, 12, "s").tolist()
    assert rows[0] == rows[1]
    window = shared.protected(12, 60)
    mean = own.shown([shown])[0, :, : 60 - window].double().mean(0)
    if kind is ExpectedAttention:
        mean[:4] = 1e9
    assert rows[0] == top(mean.tolist(), 12 - window) + list(range(60 - window, 60))
    assert own.select(shown, 12, "s").tolist() != rows


@pytest.mark.parametrize("pool", ["avg", "max"])
@pytest.mark.parametrize("prior", ["add_max", "minus_1e4", "none"])
@pytest.mark.parametrize("seed", range(6))
def test_smoothing_sees_nothing_of_the_window_whatever_the_prior(seed: int, prior: str, pool: str) -> None:
    """Written out: the early entries alone, weighed, then smoothed."""
    method = LookM(keep=Budget.parse("0.5"), window=9, window_share=0.0, prior=prior, kernel=5, pool=pool, merge="none")
    shown = asked(view(seed, 60), method)
    early = 60 - method.protected(30, 60)
    sums = method.shown([shown])[0, :, :early].double()
    bonus = {"none": 0.0, "minus_1e4": 1e4, "add_max": sums.amax(-1, keepdim=True)}[prior]
    weighed = sums + torch.where(shown.visual[:early], 0.0, bonus)
    outside = 0.0 if pool == "avg" else -torch.inf
    if prior == "minus_1e4":
        weighed = weighed - 1e4  # the same order, but it is images that lose where the outside counts as 0
    wide = torch.nn.functional.pad(weighed, (2, 2), value=outside).unfold(-1, 5, 1)
    smooth = wide.mean(-1) if pool == "avg" else wide.amax(-1)
    expected = [top(row, 30 - (60 - early)) + list(range(early, 60)) for row in smooth.tolist()]
    assert rows_of(method.layer(shown, 30, "s")) == expected


def test_shared_random_heads_draw_once() -> None:
    method = RandomKv(keep=Budget.parse("0.2"), head_shared=True)
    rows = method.select(view(1, 60), 12, "s")
    assert torch.equal(rows[0], rows[1])
    assert torch.equal(rows[0], replace(method, head_shared=False).select(view(1, 60), 12, "s")[0])


def test_text_stays_before_images_under_either_prior() -> None:
    for prior in ("add_max", "minus_1e4", "none"):
        method = LookM(keep=Budget.parse("0.5"), prior=prior)
        shown = asked(view(3, 80), method)
        first = range(60)  # the last 20 are recent
        text = [place for place in first if not shown.visual[place]]
        for row in rows_of(method.layer(shown, 40, "s")):
            held = [place for place in row if place in first]
            left_out = set(text) - set(held)
            assert bool(left_out and any(shown.visual[place] for place in held)) == (prior == "none")


@pytest.mark.parametrize("form", ["one", "two"])
def test_decoding_on_every_compressed_cache_equals_a_masked_full_forward(model: Adapter, form: str) -> None:
    names = [name for name in registry.token_methods() if issubclass(registry.load("methods", name), CachePart)]
    assert len(names) >= 10
    for name in names:
        method: Any = registry.load("methods", name)(keep=Budget.parse("0.3"))
        plain = {"merge": "none", "evict_decode": False}
        method = replace(method, **{name: value for name, value in plain.items() if hasattr(method, name)})
        with model.seams():
            tree = Tree(model, sample(form), [method])
            leaf, prompt = tree.leaf(method), tree.prefilled((None, None, None)).prompt
            ours = forced(model.step, Start(leaf.cache, 0, leaf.position), TOKENS, model.device)
        visible = everything(model, prompt.length + len(TOKENS))
        for mask, layer in zip(visible, leaf.cache, strict=True):
            for head, kept in enumerate(rows_of(layer)):
                mask[head, prompt.length :, : prompt.length] = False
                mask[head, prompt.length :, kept] = True
        torch.testing.assert_close(ours, logits(model, prompt, TOKENS, visible), **CLOSE)
