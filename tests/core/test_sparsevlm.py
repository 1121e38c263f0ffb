"""What SparseVLM keeps, who rates, and what it recycles, against brute forces in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stages import KEEPS, SAME, alike, ranked, softmax_row, stage
from torch import Tensor

from effivlm.compression.base import LayerView, Stage
from effivlm.compression.clusters import clustered
from effivlm.compression.stages import text_after
from effivlm.methods.sparsevlm import SparseVlm, chosen_raters
from effivlm.records import Budget


def raters64(embeds: Tensor, marks: Tensor) -> tuple[list[int], dict[int, float]]:
    """Text after the first visual entry, and how alike each is to the visual embeddings on average."""
    places = list(range(len(marks)))
    visual = [place for place in places if marks[place]]
    text = [place for place in places if place > visual[0] and not marks[place]]
    likeness = dict.fromkeys(text, 0.0)
    for image in visual:
        exponents = [float(embeds[image].double() @ embeds[word].double()) for word in text]
        total = sum(math.exp(value - max(exponents)) for value in exponents)
        for word, value in zip(text, exponents, strict=True):
            likeness[word] += math.exp(value - max(exponents)) / total / len(visual)
    return text, likeness


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(4, 60), st.booleans())
def test_sparsevlm_raters_are_the_words_above_the_mean(seed, length, hollow) -> None:
    drawn = stage(seed, length, hollow=hollow)
    text, likeness = raters64(drawn.embeds, drawn.marks)
    mean = sum(likeness.values()) / len(text)
    expected = [word for word in text if likeness[word] > mean]
    ours = chosen_raters(drawn.embeds, drawn.marks).tolist()
    assert all(abs(likeness[word] - mean) < SAME for word in set(ours) ^ set(expected)) or ours == text


def test_sparsevlm_worked_example_of_raters() -> None:
    # logs of (.447, .107, .447) up to a constant, seen by one visual token
    embeds = torch.tensor([[1.0], [math.log(0.447)], [math.log(0.107)], [math.log(0.447)]])
    assert chosen_raters(embeds, torch.tensor([True, False, False, False])).tolist() == [1, 3]


def test_words_that_rate_alike_all_rate() -> None:
    marks = torch.tensor([False, True, True, False, False, False])
    assert chosen_raters(torch.ones(6, 4), marks).tolist() == [3, 4, 5]
    with pytest.raises(ValueError, match="no text follows the first image"):
        chosen_raters(torch.ones(3, 4), torch.tensor([False, True, True]))


def test_text_between_images_rates_and_text_before_them_does_not() -> None:
    assert text_after(torch.tensor([False, True, False, True, False])).tolist() == [2, 4]


def by_angles(drawn: Stage, row: int) -> list[float]:
    """What position alone says of one row: turning ones by a and b leaves 2 cos(a - b) of every pair of numbers."""
    turns = torch.atan2(drawn.angles[1].double(), drawn.angles[0].double())[:, :4]
    return [2 * float((turns[row] - turns[entry]).cos().sum()) / math.sqrt(8) for entry in range(row + 1)]


def sparse_scores(drawn: Stage, head_share: float, weigh_position: bool = False) -> dict[int, float]:
    """What raters give each visual token, mean over raters and the heads that look at the picture most, in float64."""
    there = list(range(len(drawn.marks))) if drawn.there is None else drawn.there.tolist()
    rows = [there.index(place) for place in chosen_raters(drawn.embeds, drawn.marks).tolist()]
    visual = drawn.visual.nonzero()[:, 0].tolist()
    heads: list[dict[int, float]] = [dict.fromkeys(visual, 0.0) for _ in drawn.before.queries]
    for row in rows:
        alone = by_angles(drawn, row) if weigh_position else [1.0] * (row + 1)
        for got, weights in zip(heads, softmax_row(drawn.before, row), strict=True):
            for entry in visual:
                got[entry] += float(weights[entry]) / alone[entry] / len(rows) if entry <= row else 0.0
    count = max(1, math.floor(head_share * len(heads) + 0.5))
    chosen = sorted(heads, key=lambda given: -sum(given.values()))[:count]
    return {entry: sum(given[entry] for given in chosen) / count for entry in visual}


def test_v2_divides_by_the_product_of_turned_ones_and_not_by_its_softmax() -> None:
    """Attention (.10, .05, .135) over products proportional to cos(.75), cos(.5), cos(.25): the last is the highest."""
    turns = (torch.arange(5) * 0.25)[:, None].expand(5, 2)
    row = torch.tensor([0.40, 0.10, 0.05, 0.135, 0.315])
    keys = torch.stack([row.log() * 2**0.5, torch.zeros(5)], 1)[None]
    queries = torch.tensor([[1.0, 0.0]]).expand(1, 5, 2)
    marks = torch.tensor([False, True, True, True, False])
    view = LayerView(queries, keys, keys, marks, 1)
    hidden = torch.zeros(5, 2)
    drawn = Stage(0, 2, view, hidden, hidden, marks, lambda: view, lambda: hidden, (turns.cos(), turns.sin()))
    method = SparseVlm(keep=Budget.parse("0.4"), **SparseVlm.presets["v2"])
    assert method.select(drawn, 1, "s").kept.tolist() == [3]
    assert method.select(drawn, 2, "s").kept.tolist() == [1, 3]
    assert SparseVlm(recycle=False).select(drawn, 1, "s").kept.tolist() == [3], "without it the attention alone decides"


def test_v2_counts_what_position_sets_against_a_rater_negatively() -> None:
    turns = torch.tensor([[0.0], [0.0], [math.pi - 0.1], [0.0]]).expand(4, 2)
    keys = torch.zeros(1, 4, 2)
    marks = torch.tensor([False, True, True, False])
    view = LayerView(keys, keys, keys, marks, 1)
    hidden = torch.zeros(4, 2)
    drawn = Stage(0, 2, view, hidden, hidden, marks, lambda: view, lambda: hidden, (turns.cos(), turns.sin()))
    method = SparseVlm(keep=Budget.parse("0.4"), **SparseVlm.presets["v2"])
    assert method.select(drawn, 1, "s").kept.tolist() == [1]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(4, 60), st.booleans(), KEEPS, st.sampled_from(["paper", "v2"]))
def test_sparsevlm_keeps_what_a_brute_force_keeps(seed, length, hollow, keep, preset) -> None:
    method = SparseVlm(keep=keep, **{**SparseVlm.presets[preset], "recycle": False})
    whole = stage(seed, length, hollow=hollow)
    drawn = stage(seed, length, rows=min(length, method.rows(whole.marks)), hollow=hollow)
    scores = sparse_scores(drawn, method.head_share, method.weigh_position)
    budget = keep.of(len(scores))
    ours = method.select(drawn, budget, "s")
    assert ours.features is None
    assert alike(ours.kept.tolist(), ranked(scores, budget), scores)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(4, 90), st.booleans(), st.data())
def test_sparsevlm_recycles_the_best_dropped_tokens_into_means(seed, length, hollow, data) -> None:
    drawn = stage(seed, length, hollow=hollow)
    scores = sparse_scores(drawn, 1.0)
    budget = data.draw(st.integers(1, len(scores)))
    method = SparseVlm(keep=Budget.parse("0.5"))
    clusters = method._clusters(len(scores), budget)
    ours = method.select(drawn, budget, "s")
    order = sorted(scores, key=lambda entry: (-scores[entry], entry))
    kept, dropped = order[: budget - clusters], order[budget - clusters :]
    expected = {entry: drawn.hidden[entry].tolist() for entry in kept}
    if clusters:
        pool = sorted(dropped[: min(len(dropped), math.floor(0.3 * len(dropped)) + 1)])
        centres, means = clusters64(drawn.hidden[pool].double().tolist(), clusters)
        expected |= {pool[centre]: mean for centre, mean in zip(centres, means, strict=True)}
    assert sorted(expected) == ours.kept.tolist()
    features = drawn.hidden[ours.kept] if ours.features is None else ours.features
    torch.testing.assert_close(features, torch.tensor([expected[entry] for entry in sorted(expected)]))
    assert (ours.features is None) == (clusters == 0)


@pytest.mark.parametrize(("present", "official", "clusters"), [(576, 300, 9), (309, 200, 4), (204, 110, 3)])
def test_sparsevlm_makes_as_many_clusters_as_the_published_code(present: int, official: int, clusters: int) -> None:
    method = SparseVlm(keep=Budget.parse("0.5"))
    assert method._clusters(present, official + clusters) == clusters
    assert method._clusters(present, present) == method._clusters(present, 1) == 0


def clusters64(points: list[list[float]], count: int) -> tuple[list[int], list[list[float]]]:
    """Density peaks, point by point."""
    width = len(points[0])
    apart = [[math.dist(one, other) / math.sqrt(width) for other in points] for one in points]
    density = [-sum(value**2 for value in sorted(row)[:count]) / count for row in apart]
    farthest = max(max(row) for row in apart)
    peak = []
    for one, row in enumerate(apart):
        denser = [row[other] for other in range(len(points)) if (density[other], -other) > (density[one], -one)]
        peak.append(math.exp(density[one]) * (min(denser) if denser else farthest))
    centres = sorted(sorted(range(len(points)), key=lambda one: (-peak[one], one))[:count])
    members: list[list[int]] = [[] for _ in centres]
    for one, row in enumerate(apart):
        own = (
            centres.index(one) if one in centres else min(range(count), key=lambda place: (row[centres[place]], place))
        )
        members[own].append(one)
    return centres, [
        [sum(points[one][axis] for one in those) / len(those) for axis in range(width)] for those in members
    ]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 30), st.data())
def test_clusters_are_those_of_a_brute_force(seed, number, data) -> None:
    count = data.draw(st.integers(1, number))
    points = torch.randint(-40, 40, (number, 3), generator=torch.Generator().manual_seed(seed)).double() / 16
    centres, means = clustered(points, count)
    expected_centres, expected = clusters64(points.tolist(), count)
    assert centres.tolist() == expected_centres
    torch.testing.assert_close(means, torch.tensor(expected, dtype=torch.float64))


def test_equal_points_and_far_ones_make_clusters_without_nan() -> None:
    centres, means = clustered(torch.ones(7, 4), 3)
    assert len(set(centres.tolist())) == 3
    assert torch.equal(means, torch.ones(3, 4))
    far = torch.randn(9, 4, generator=torch.Generator().manual_seed(0)) * 1e4  # exp(-distance) is 0 for all of them
    assert bool(clustered(far, 4)[1].isfinite().all())
