"""How the total of a cache method is split over layers, and how much of a layer's end always stays."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_methods import asked, attention64, view

from effivlm.compression.base import CachePart, LayerView, question_rows
from effivlm.compression.budget import apportion
from effivlm.compression.layers import mixed, pyramid
from effivlm.methods.adakv import AdaKv
from effivlm.methods.expected_attention import ExpectedAttention
from effivlm.methods.h2o import H2o
from effivlm.methods.look_m import LookM
from effivlm.methods.pyramidkv import PyramidKv
from effivlm.methods.random_kv import RandomKv
from effivlm.methods.snapkv import SnapKv
from effivlm.methods.streaming_llm import StreamingLlm
from effivlm.methods.tova import Tova
from effivlm.methods.vl_cache import VlCache
from effivlm.records import Budget
from effivlm.seams.columns import received_and_near

KEEPS = st.fractions(min_value=Fraction(1, 100), max_value=Fraction(99, 100), max_denominator=100).map(Budget)
KINDS = [SnapKv, PyramidKv, H2o, LookM, VlCache, AdaKv, Tova, ExpectedAttention, RandomKv]


def density(queries: torch.Tensor, keys: torch.Tensor, threshold: float) -> torch.Tensor:
    return received_and_near(queries, keys, threshold)[1]


def views(method: CachePart, lengths: list[int], seed: int = 0) -> list[LayerView]:
    """Layers of these lengths, longest first, the later ones with ever sharper attention; their ends are of one prompt."""
    found: list[LayerView] = []
    marks = view(seed, max(lengths)).visual
    for layer, length in enumerate(sorted(lengths, reverse=True)):
        shown = view(seed + layer, length)
        found.append(asked(replace(shown, queries=shown.queries * (0.2 + layer), visual=marks[-length:]), method))
    return found


@pytest.mark.parametrize(
    ("layers", "mean", "high", "expected"),
    [(4, 10, 1000, [20, 13, 7, 0]), (3, 20, 1000, [39, 20, 1]), (4, 60, 90, [90, 70, 50, 30]), (1, 7, 9, [7])],
)
def test_pyramid_worked_examples(layers: int, mean: int, high: int, expected: list[int]) -> None:
    line = pyramid(layers, Fraction(mean), Fraction(20), high)
    assert sum(line) == layers * mean
    assert apportion(line, layers * mean, high=high) == expected


@pytest.mark.parametrize(
    ("keep", "length", "layers", "expected"),
    [("0.2", 90, 4, [28, 21, 15, 8]), ("0.2", 140, 3, [47, 28, 9]), (Fraction(68, 98), 98, 4, [98, 78, 58, 38])],
)
def test_pyramidkv_adds_its_window_to_the_worked_examples(keep, length, layers, expected) -> None:
    method = PyramidKv(keep=Budget.parse(keep))
    assert method.budgets(views(method, [length] * layers)) == expected


def test_a_pyramid_without_slope_keeps_what_snapkv_keeps() -> None:
    flat, plain = (kind(keep=Budget.parse("0.3"), window=8) for kind in (PyramidKv, SnapKv))
    flat = replace(flat, beta=1.0)
    shown = views(flat, [61, 61, 61])
    ours, theirs = flat.compress(shown, "s"), plain.compress(shown, "s")
    assert all(torch.equal(left.keys, right.keys) for left, right in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", ["pyramid", "density"])
@settings(deadline=None, max_examples=12)
@given(
    seed=st.integers(0, 10**6),
    lengths=st.one_of(
        st.tuples(st.integers(2, 80), st.integers(1, 5)).map(lambda pair: [pair[0]] * pair[1]),
        st.lists(st.integers(2, 80), min_size=1, max_size=5),
    ),
    keep=KEEPS,
    mix=st.sampled_from([0.0, 0.3, 0.8, 1.0]),
    window=st.sampled_from([{}, {"window": 3}, {"window": 1, "window_share": 0.29}, {"window_share": 1.0}]),
    same=st.booleans(),
)
def test_layers_sum_to_the_total_exactly_whatever_the_rule(kind, rule, seed, lengths, keep, mix, window, same) -> None:
    fields: dict[str, Any] = {"layer_budgets": rule, "uniform_share": mix, **window}
    if not issubclass(kind, SnapKv):
        fields["same_window"] = same
    method = kind(keep=keep, **fields)
    shown = views(method, lengths, seed)
    lengths = [one.length for one in shown]
    budgets = method.budgets(shown)
    assert sum(budgets) == sum(keep.of(length) for length in lengths)
    assert all(1 <= budget <= length for budget, length in zip(budgets, lengths, strict=True))
    if mix == 1:
        assert budgets == [keep.of(length) for length in lengths]
    for layer, budget in zip(method.compress(shown, "s"), budgets, strict=True):
        assert layer.kept == budget
        assert layer.indices is not None


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(2, 60), st.integers(1, 20), st.sampled_from([0.001, 0.01, 0.3, 1.0]))
def test_density_is_the_share_of_entries_near_their_rows_largest(seed, length, rows, threshold) -> None:
    rows = min(rows, length)
    shown = view(seed, length, rows=rows)
    attention, found = attention64(shown), []
    for head in attention:
        dense = sum(int((row >= threshold * row.max()).sum()) for row in head)
        found.append(dense / sum(length - rows + row + 1 for row in range(rows)))
    ours = density(shown.queries, shown.keys, threshold)
    torch.testing.assert_close(ours.double(), torch.tensor(found).double(), rtol=0, atol=1.01 / rows / length)
    assert (density(shown.queries, shown.keys, 0.0) == 1).all(), "with no threshold all count, later ones never"


def test_density_worked_example_leaves_out_what_is_under_a_hundredth_of_the_largest() -> None:
    row = torch.tensor([0.5, 0.3, 0.196, 0.004])
    queries, keys = (row.log() * 2)[None, None], torch.eye(4)[None]
    assert density(queries, keys, 0.01).tolist() == [0.75]
    assert density(queries, keys, 1.0).tolist() == [0.25]


def test_density_does_not_depend_on_the_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = view(3, 50)
    whole = density(shown.queries, shown.keys, 0.01)
    monkeypatch.setattr("effivlm.seams.columns.BLOCK", 7)
    torch.testing.assert_close(density(shown.queries, shown.keys, 0.01), whole)


def test_hybrid_worked_example_splits_four_fifths_evenly() -> None:
    assert mixed([Fraction(3, 10), Fraction(1, 10)], Fraction(0)) == [Fraction(3, 4), Fraction(1, 4)]
    assert mixed([Fraction(3, 10), Fraction(1, 10)], Fraction(4, 5)) == [Fraction(11, 20), Fraction(9, 20)]
    assert VlCache.presets["hybrid"] == {"uniform_share": 0.8}


def test_denser_layers_get_more_and_less_so_in_a_mix() -> None:
    keep = Budget.parse("0.2")
    pure, hybrid = VlCache(keep=keep), VlCache(keep=keep, uniform_share=0.8)
    shown = views(pure, [80] * 4)
    densities = [float(density(one.queries[:, -question_rows(one.visual) :], one.keys, 0.01).mean()) for one in shown]
    assert densities == sorted(densities, reverse=True)
    budgets = pure.budgets(shown)
    assert budgets == sorted(budgets, reverse=True)
    spread = lambda method: max(method.budgets(shown)) - min(method.budgets(shown))  # noqa: E731
    assert spread(pure) > spread(hybrid) > 0
    assert all(budget >= 2 for budget in budgets)


def test_equal_layers_get_equal_budgets_by_density() -> None:
    method = VlCache(keep=Budget.parse("0.2"))
    shown = views(method, [70])[0]
    assert method.budgets([shown] * 3) == [14] * 3


def test_no_layer_falls_under_the_density_floor() -> None:
    method = VlCache(keep=Budget.parse("0.2"), density_floor=0.15, floor_share=1.0)
    assert min(method.budgets(views(method, [80] * 4))) == 12
    small = VlCache(keep=Budget.parse("0.05"), density_floor=0.15, floor_share=1.0)
    assert small.budgets(views(small, [80] * 4)) == [4] * 4, "a floor above the budget leaves nothing to split"


@pytest.mark.parametrize(("keep", "least"), [("0.01", 4), ("0.05", 20), ("0.1", 40), ("0.2", 40), ("0.4", 40)])
def test_the_floor_is_a_hundredth_of_the_prompt_or_a_tenth_of_the_budget(keep: str, least: int) -> None:
    method = VlCache(keep=Budget.parse(keep))
    assert method._floor(method.keep.of(4000), 4000) == least


@pytest.mark.parametrize("preset", ["paper", "hybrid"])
@pytest.mark.parametrize("keep", ["0.009", "0.01", "0.011"])
def test_at_a_hundredth_layers_still_share_by_density(preset: str, keep: str, monkeypatch: pytest.MonkeyPatch) -> None:
    densities = [0.4, 0.3, 0.2, *[0.02] * 25]
    method = VlCache(keep=Budget.parse(keep), **VlCache.presets[preset])
    monkeypatch.setattr(VlCache, "_densities", lambda self, views: densities)
    length = 3000
    marks = torch.zeros(length, dtype=torch.bool)
    shown = [LayerView(torch.zeros(1, 1, 2), *torch.zeros(2, 1, length, 2), marks, layer) for layer in range(28)]
    budgets, uniform = method.budgets(shown), method.keep.of(length)
    assert sum(budgets) == 28 * uniform
    mix = method.uniform_share
    for budget, dense in zip(budgets, densities, strict=True):
        ideal = 28 * uniform * (mix / 28 + (1 - mix) * dense / sum(densities))
        assert abs(budget - max(ideal, uniform / 10)) < 1 + uniform / 10, "near its share of the total"
    assert budgets[0] > 1.5 * uniform > 1.5 * budgets[-1]


def test_pyramids_fall_from_layer_to_layer() -> None:
    for kind in KINDS:
        method = kind(keep=Budget.parse("0.3"), layer_budgets="pyramid")
        budgets = method.budgets(views(method, [90] * 5))
        assert all(low <= high for high, low in pairwise(budgets))
        assert budgets[0] > budgets[-1]


@pytest.mark.parametrize("kind", KINDS)
def test_layers_that_lost_an_image_look_at_the_same_rows_in_any_company(kind: type[Any]) -> None:
    whole = view(1, 60)
    marks = torch.zeros(60, dtype=torch.bool)
    marks[[*range(3, 20), *range(40, 50)]] = True
    first = replace(whole, visual=marks)
    there = (~marks | (torch.arange(60) < 8)).nonzero()[:, 0]  # the second image is gone from layer 1 on
    later = replace(view(2, 60), visual=marks[there])
    later = replace(later, **{name: getattr(later, name)[:, there] for name in ("queries", "keys", "values")})
    method = kind(keep=Budget.parse("0.3"), layer_budgets="density")
    rows, known = method.rows(marks), question_rows(marks)  # as a prefill tells its layers
    first, later = replace(first, question=known), replace(later, question=known)
    asked_for = [asked(first, method), asked(later, replace(method, layer_budgets="uniform"))]
    narrow = [
        replace(one, queries=full.queries[:, -rows:]) for one, full in zip(asked_for, (first, later), strict=True)
    ]
    wide = [replace(one, queries=full.queries) for one, full in zip(asked_for, (first, later), strict=True)]
    for ours, theirs in zip(method.compress(narrow, "s"), method.compress(wide, "s"), strict=True):
        assert torch.equal(ours.indices, theirs.indices)  # type: ignore[arg-type]
        assert ours.lengths == theirs.lengths


@pytest.mark.parametrize(
    ("fields", "budget", "expected"),
    [
        ({"window": 3}, 10, 3),
        ({"window": 3}, 2, 2),
        ({"window_share": 0.5}, 7, 3),
        ({"window_share": 0.29}, 100, 29),
        ({"window": 1, "window_share": 0.1}, 5, 1),
        ({"window": 1, "window_share": 0.1}, 30, 3),
        ({"window_share": 0.1}, 5, 0),
    ],
)
def test_the_end_that_stays_is_a_number_or_a_share_and_never_more_than_the_budget(fields, budget, expected) -> None:
    assert Tova(**fields).held(budget, 200) == expected


@pytest.mark.parametrize(("budget", "window"), [(1, 1), (2, 1), (9, 8), (33, 32), (100, 32)])
def test_an_observation_window_leaves_room_for_what_it_saw(budget: int, window: int) -> None:
    assert SnapKv().held(budget, 200) == window


def test_a_window_share_is_one_of_the_layer_or_of_the_prompt() -> None:
    keep = Budget.parse("0.5")
    own, same = (VlCache(keep=keep, window_share=0.2, same_window=same) for same in (False, True))
    assert [own.protected(budget, 100) for budget in (20, 80)] == [4, 16]
    assert [same.protected(budget, 100) for budget in (20, 80)] == [10, 10]


def test_the_question_is_what_follows_the_last_image() -> None:
    marks = torch.zeros(100, dtype=torch.bool)
    assert question_rows(marks) == 32
    assert question_rows(marks[:9]) == 9
    marks[[5, 90]] = True
    assert question_rows(marks) == 9
    marks[99] = True
    assert question_rows(marks) == 32


@pytest.mark.parametrize("keep", ["0.1", "0.5"])
def test_presets_of_the_benchmark_keep_a_tenth_at_the_end(keep: str) -> None:
    for kind in (SnapKv, PyramidKv, H2o, LookM, VlCache, RandomKv):
        method = kind(keep=Budget.parse(keep), **kind.presets["effivlm"])
        assert method.protected(method.keep.of(200), 200) == method.keep.of(200) // 10
    assert StreamingLlm(keep=Budget.parse(keep), recent_share=0.29).select(view(0, 200), 100, "s")[0, 71] == 171


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: H2o(window=-1), "window -1 must be at least 0"),
        (lambda: H2o(window_share=1.5), "window_share 1.5 must be between 0 and 1"),
        (lambda: Tova(layer_budgets="cone"), "layer_budgets 'cone' is not one of uniform, pyramid, density"),
        (lambda: Tova(uniform_share=-0.1), "uniform_share -0.1 must be between 0 and 1"),
        (lambda: PyramidKv(beta=0.5), "beta 0.5 must be at least 1"),
        (lambda: VlCache(density_threshold=2), "density_threshold 2 must be between 0 and 1"),
        (lambda: VlCache(density_floor=-1), "density_floor -1 must be between 0 and 1"),
        (lambda: VlCache(floor_share=1.5), "floor_share 1.5 must be between 0 and 1"),
        (lambda: H2o(kernel=2), "kernel 2 must be odd"),
        (lambda: H2o(pool="sum"), "pool 'sum' is not one of avg, max"),
        (lambda: LookM(merge="mean"), "merge 'mean' is not one of none, averaged, pivotal, weighted"),
        (lambda: LookM(merge_scope="text"), "merge_scope 'text' is not one of all, same_modality"),
        (lambda: LookM(prior="max"), "prior 'max' is not one of add_max, minus_1e4, none"),
        (lambda: SnapKv(window=0), "window 0 must be 1 or more"),
        (lambda: SnapKv(same_window=False), "same_window False is not allowed"),
        (lambda: AdaKv(alpha=1.2), "alpha 1.2 must be between 0 and 1"),
        (lambda: AdaKv(floor="hard"), "floor 'hard' is not one of convex, lower_bound"),
        (lambda: AdaKv(head_shared=True), "head_shared True is not allowed"),
        (lambda: AdaKv(merge="pivotal"), "merge 'pivotal' is not allowed"),
        (lambda: ExpectedAttention(horizon=0), "horizon 0 must be at least 1"),
        (lambda: ExpectedAttention(sinks=-1), "sinks -1 must be at least 0"),
        (lambda: ExpectedAttention(epsilon=-1.0), "epsilon -1 must be at least 0"),
        (lambda: StreamingLlm(sinks=-1), "sinks -1 must be at least 0"),
        (lambda: StreamingLlm(recent_share=2), "recent_share 2 must be between 0 and 1"),
    ],
)
def test_impossible_fields_are_refused_with_their_value_and_what_is_allowed(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("kind", [SnapKv, H2o, LookM, PyramidKv, VlCache, AdaKv, Tova, ExpectedAttention])
@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10**6), length=st.integers(40, 80), sinks=st.integers(0, 3), visual=st.integers(0, 3))
def test_sinks_and_text_stay_before_any_score_counts(kind, seed, length, sinks, visual) -> None:
    method = kind(keep=Budget.parse("0.8"), window=4, sinks=sinks, visual_sinks=visual, protect_text=True)
    shown = view(seed, length)
    shown = replace(shown, visual=torch.arange(length) % 4 > 0)
    (layer,) = method.compress([asked(shown, method)], "s")
    text = (~shown.visual).nonzero()[:, 0].tolist()
    wanted = {*range(sinks), *shown.visual.nonzero()[:visual, 0].tolist(), *text}
    counts = layer.lengths or (layer.keys.shape[1],) * len(layer.keys)
    for row, count in zip(layer.indices.tolist(), counts, strict=True):
        assert wanted <= set(row[:count])
    plain = replace(method, sinks=0, visual_sinks=0, protect_text=False)
    (without,) = plain.compress([asked(shown, plain)], "s")
    assert sum(counts) == sum(without.lengths or counts), "protection spends nothing extra"


def test_protected_entries_beyond_the_budget_go_from_the_end() -> None:
    method = SnapKv(keep=Budget.parse("0.2"), window=1, protect_text=True)
    shown = replace(view(0, 40), visual=torch.zeros(40, dtype=torch.bool))
    (layer,) = method.compress([shown], "s")
    assert layer.indices.tolist() == [[*range(7), 39]] * 2


def test_h2o_evicts_no_protected_entry_while_it_decodes() -> None:
    shown = view(3, 30)
    shown = replace(shown, received=attention64(shown).sum(1).float())
    (layer,) = H2o(keep=Budget.parse("0.5"), sinks=2).compress([shown], "s")
    assert layer.rolling is not None
    safe = layer.rolling.scores > 1e20
    assert layer.indices[safe].tolist() == [0, 1] * 2
