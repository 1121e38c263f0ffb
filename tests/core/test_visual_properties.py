"""What holds of every choice of visual tokens, whatever the image and the budget."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise
from typing import Any

import pytest
import torch
from brute_visual import KINDS, brute, by, double, picked, seen
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from effivlm.compression.per_image import PerImage, Seen
from effivlm.compression.similar import closest, closest_other, unit
from effivlm.methods.divprune import DivPrune, farthest
from effivlm.methods.prumerge_plain import PruMergePlain
from effivlm.methods.prumerge_plus import PruMergePlus, outliers
from effivlm.methods.visionzip import VisionZip
from effivlm.methods.vispruner import VisPruner
from effivlm.seams.hooks import Tower

few = settings(deadline=None, max_examples=25)
SEEDS, LENGTHS = st.integers(0, 10**6), st.integers(1, 40)


def one_hot(shown: Seen) -> Seen:
    """The same tokens with features that say which tokens went into a merged one, and with what weight."""
    return replace(shown, features=torch.eye(len(shown.features)))


@few
@given(SEEDS, LENGTHS, st.sampled_from(["paper", "effivlm"]), st.data())
def test_visionzip_leaves_dominants_bit_for_bit_and_assigns_every_other_token_once(seed, length, preset, data) -> None:
    budget = data.draw(st.integers(1, length))
    method, shown = VisionZip(**VisionZip.presets[preset]), one_hot(seen(seed, length))
    count = method.contextual(budget)
    chosen = method.choose(shown, budget)
    if not count:
        assert chosen.features is None
        return
    dominant = torch.isin(chosen.kept, shown.shown.received.argsort(descending=True, stable=True)[: budget - count])
    weights = chosen.features
    assert weights is not None
    assert torch.equal(weights[dominant], shown.features[chosen.kept[dominant]])
    gone = torch.ones(length, dtype=torch.bool)
    gone[chosen.kept] = False
    assert ((weights > 0).sum(0)[gone] == 1).all(), "a dropped token joins one centre"
    assert not weights[dominant][:, gone].any()
    merged = weights[~dominant]
    assert torch.equal(merged[torch.arange(count), chosen.kept[~dominant]], torch.ones(count)), "a centre keeps itself"
    mass = (merged[:, gone].sum(1) - merged[:, gone].bool().any(1).float()).abs()
    assert mass.max() < 1e-5, "the others of a centre are averaged"


def test_visionzip_adds_the_mean_of_tokens_that_are_all_alike() -> None:
    shown = seen(4, 30)
    centre = VisionZip(context=1.0)
    alike = torch.full((5,), 2.5)
    kept = centre.choose(shown, 6).kept
    features = alike.repeat(30, 1)
    features[kept] = shown.features[kept]
    chosen = centre.choose(replace(shown, features=features), 6)
    torch.testing.assert_close(chosen.features, shown.features[kept] + alike)


@few
@given(
    SEEDS,
    st.integers(2, 40),
    st.integers(0, 6),
    st.booleans(),
    st.sampled_from([PruMergePlain, PruMergePlus]),
    st.data(),
)
def test_prumerge_takes_in_exactly_its_neighbours_with_their_attention(seed, length, near, extra, kind, data) -> None:
    budget = data.draw(st.integers(1, length))
    method, shown = kind(neighbours=near, extra=extra), one_hot(seen(seed, length))
    chosen, scores = method.choose(shown, budget), shown.shown.single
    extra = extra and budget < length
    kept = picked(method, scores, budget - extra)
    assert chosen.features is not None
    gone = [token for token in range(length) if token not in kept]
    for token, weights in zip(chosen.kept.tolist(), chosen.features, strict=True):
        if token not in kept:
            assert extra
            assert token == gone[-1]
            expected = torch.where(torch.isin(torch.arange(length), torch.tensor(gone)), scores, 0.0)
            torch.testing.assert_close(weights, expected)
        else:
            others = weights - torch.eye(length)[token]
            assert int((others > 0).sum()) == min(near, length - 1)
            torch.testing.assert_close(others[others > 0], scores[others > 0], rtol=1e-5, atol=1e-7)
            assert others[token].abs() < 1e-6, "a token is not its own neighbour"


def test_prumerge_that_merges_nothing_is_plain_top_k_bit_for_bit() -> None:
    shown = seen(1, 50)
    chosen = PruMergePlain(neighbours=0, extra=False).choose(shown, 9)
    assert chosen.kept.tolist() == shown.shown.single.argsort(descending=True)[:9].sort().values.tolist()
    assert chosen.features is not None
    assert torch.equal(chosen.features, shown.features[chosen.kept])
    whole = PruMergePlain(neighbours=0).choose(shown, 50)
    assert whole.features is not None
    assert torch.equal(whole.features, shown.features), "where nothing is dropped no token sums the dropped"


@few
@given(SEEDS, st.integers(8, 60), st.sampled_from([0.25, 1.0, 8.0]), st.sampled_from([0.0, 1.0]), st.data())
def test_outliers_do_not_depend_on_scale_and_offset_and_samples_cover_the_picture(
    seed, length, scale, offset, data
) -> None:
    scores = torch.randint(0, 64, (length,), generator=torch.Generator().manual_seed(seed)).float()
    scores[seed % length] = 4096
    assert 1 <= outliers(scores) == outliers(scores * scale + offset)
    count = data.draw(st.integers(1, length))
    kept = picked(PruMergePlus(), scores, count)
    assert kept == sorted(set(kept))
    first = min(count, outliers(scores))
    top = scores.argsort(descending=True, stable=True)[:first].tolist()
    assert set(top) <= set(kept)
    samples = [token for token in kept if token not in top]
    if samples:
        widest = max(b - a for a, b in zip([-1, *samples], [*samples, length], strict=True))
        assert widest <= 2 * -(-length // len(samples)) + len(top)
    else:
        assert kept == picked(PruMergePlain(), scores, count)


@few
@given(SEEDS, LENGTHS)
def test_divprune_picks_in_one_order_whatever_the_budget_scale_and_rotation(seed, length) -> None:
    features = seen(seed, length).features
    assume(brute(DivPrune(), double(seen(seed, length)), length).margin > 1e-5)
    order = farthest(features, length).tolist()
    assert sorted(order) == list(range(length))
    for count in range(1, length):
        assert farthest(features, count).tolist() == order[:count]
    scale = torch.rand(length, 1, generator=torch.Generator().manual_seed(seed)) * 9 + 0.1
    assert farthest(features * scale, length).tolist() == order
    turn = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(seed + 1)))[0]
    assert farthest(features @ turn, length).tolist() == order


@few
@given(SEEDS, st.integers(3, 9), st.data())
def test_divprune_covers_at_most_twice_as_wide_as_the_best_cover(seed, length, data) -> None:
    tokens = unit(seen(seed, length, dim=3).features).double()
    distance = (tokens[:, None] - tokens[None]).norm(dim=-1)
    order = farthest(tokens, length).tolist()
    radii = [float(distance[:, order[:count]].min(1).values.max()) for count in range(1, length + 1)]
    assert all(wide >= narrow for wide, narrow in pairwise(radii))
    count = data.draw(st.integers(1, min(3, length)))
    covers = (float(distance[:, list(centres)].min(1).values.max()) for centres in combinations(range(length), count))
    assert radii[count - 1] <= 2 * min(covers) + 1e-5


def test_copies_of_a_token_are_left_for_last() -> None:
    distinct = unit(torch.randn(6, 8, generator=torch.Generator().manual_seed(2)))
    twins = torch.cat([distinct, distinct * 3])
    assert {token % 6 for token in farthest(twins, 6).tolist()} == set(range(6))
    paired = twins[torch.arange(12).reshape(2, 6).T.flatten()]
    falling = [1 - 0.01 * place for place in range(12)]
    chosen = VisPruner(important=0.0).choose(by(falling, features=paired.tolist()), 6)
    assert {token // 2 for token in chosen.kept.tolist()} == set(range(6)), "copies stood on opposite sides"
    paired[[0, 1, 2, 3, 4, 5, 8, 9, 10, 11]] = torch.randn(10, 8, generator=torch.Generator().manual_seed(3))
    chosen = VisPruner(important=0.0, step=1).choose(by(falling, features=paired.tolist()), 11)
    assert chosen.kept.tolist() == [0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11], "the first of the only two copies goes first"


@few
@given(SEEDS, LENGTHS, st.data())
def test_vispruner_keeps_what_is_important_and_all_of_it_when_nothing_else_is_asked(seed, length, data) -> None:
    budget = data.draw(st.integers(1, length))
    shown = seen(seed, length)
    falling = shown.shown.received.argsort(descending=True).tolist()
    assert VisPruner(important=1).choose(shown, budget).kept.tolist() == sorted(falling[:budget])
    assert set(falling[: budget // 2]) <= set(VisPruner().choose(shown, budget).kept.tolist())
    scale = torch.tensor([2.0**power for power in range(-3, 4)])[torch.arange(length) % 7, None]
    scaled = replace(shown, features=shown.features * scale)
    assert VisPruner().choose(scaled, budget).kept.tolist() == VisPruner().choose(shown, budget).kept.tolist()


def test_vispruner_needs_no_more_rounds_than_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds: list[int] = []
    module = "effivlm.methods.vispruner.closest"
    monkeypatch.setattr(module, lambda a, b: (rounds.append(len(a)), closest(a, b))[1])
    VisPruner(important=0).choose(seen(1, 40), 8)
    assert len(rounds) == 4, "32 tokens, 8 in each round"
    rounds.clear()
    VisPruner(important=0, step=1, rounds=3).choose(seen(1, 40), 30)
    assert rounds == [20, 18, 16], "10 tokens, 4 in each round"
    rounds.clear()
    VisPruner(important=0, step=10**6).choose(seen(1, 41), 4)
    assert rounds == [21, 10, 5, 3], "a round drops at most one half"


@pytest.mark.parametrize("kind", KINDS)
@few
@given(SEEDS, st.integers(2, 40), st.sampled_from([1e-3, 0.5, 1e3]), st.data())
def test_the_set_depends_neither_on_the_scale_of_scores_and_keys_nor_on_the_order_of_heads(
    kind, seed, length, scale, data
) -> None:
    budget = data.draw(st.integers(1, length))
    shown = seen(seed, length)
    tower = shown.shown
    expected = brute(kind(), double(shown), budget)
    assume(expected.margin > 1e-5)
    changed = Tower(tower.received * scale, tower.single * scale, tower.keys.flip(1) * scale)
    assert kind().choose(replace(shown, tower=changed), budget).kept.tolist() == expected.kept


def choice(method: PerImage, shown: Seen, budget: int) -> list[int]:
    return method.choose(shown, budget).kept.tolist()


@pytest.mark.parametrize(
    "method", [VisionZip(context=0), PruMergePlain(extra=False), DivPrune(), VisPruner(important=1)], ids=repr
)
@few
@given(SEEDS, st.integers(2, 40), st.data())
def test_tokens_shuffled_with_all_that_is_known_of_them_give_the_same_set(method, seed, length, data) -> None:
    budget = data.draw(st.integers(1, length))
    shown, tower = seen(seed, length), seen(seed, length).shown
    image = double(shown)
    assume(brute(method, image, budget).margin > 1e-5)
    order = torch.randperm(length, generator=torch.Generator().manual_seed(seed))
    mixed = Seen(shown.features[order], Tower(tower.received[order], tower.single[order], tower.keys[order]))
    theirs = sorted(order[choice(method, mixed, budget)].tolist())
    if isinstance(method, DivPrune):  # the first of the two farthest but nearest to each other goes by place
        tokens = unit(shown.features)
        nearest = closest_other(tokens)
        assume(int((nearest - nearest.min() < 1e-5).sum()) == 1)
    assert theirs == choice(method, shown, budget)


@pytest.mark.parametrize("method", [VisionZip(context=0), PruMergePlain(extra=False), DivPrune()], ids=repr)
def test_a_larger_budget_keeps_what_a_smaller_one_keeps(method: PerImage) -> None:
    shown = seen(8, 40)
    sets = [set(choice(method, shown, budget)) for budget in range(1, 41)]
    assert all(small < large for small, large in pairwise(sets))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("preset", ["paper", "effivlm"])
def test_one_token_and_a_budget_of_one(kind: Any, preset: str) -> None:
    method = kind(**kind.presets.get(preset, {}))
    assert method.choose(seen(0, 1), 1).kept.tolist() == [0]
    for scores in ("any", "equal", "one"):
        chosen = method.choose(seen(3, 17, scores=scores), 1)
        assert len(chosen.kept) == 1
        assert chosen.features is None or chosen.features.isfinite().all()


def test_a_lone_prumerge_token_is_the_attention_weighted_sum_of_the_image() -> None:
    shown = seen(2, 11)
    chosen = PruMergePlain().choose(shown, 1)
    assert chosen.kept.tolist() == [10]
    torch.testing.assert_close(chosen.features, shown.shown.single[None] @ shown.features)
