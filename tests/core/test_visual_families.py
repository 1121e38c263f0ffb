"""Methods that choose visual tokens inside the three families: the prompt they make, and when they are asked."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from brute_visual import KINDS, Image, brute, evenly
from forms import sample

from effivlm.compression.base import ImageView, Selection, VisualPart
from effivlm.compression.per_image import PerImage
from effivlm.methods.dense import Dense
from effivlm.methods.divprune import DivPrune
from effivlm.methods.prumerge_plain import PruMergePlain
from effivlm.methods.random_visual import RandomVisual
from effivlm.methods.visionzip import VisionZip
from effivlm.methods.vispruner import VisPruner
from effivlm.models._adapter import Adapter
from effivlm.records import Budget
from effivlm.run.tree import Tree


def views(model: Adapter, form: str) -> list[ImageView]:
    visual = model.encode(model.prepare(sample(form)), looking=True)
    return [ImageView(*seen) for seen in zip(visual.features, visual.places, visual.towers or (), strict=True)]


def by_hand(method: Any, view: ImageView, share: int) -> Selection:
    """What loops choose of one image as the family shows it; in tiles and frames but where a method says otherwise."""
    assert view.tower is not None
    blocks = view.places[:, 0].tolist()
    apart = getattr(method, "scope", "image") == "tile"
    names = sorted({block for block in blocks if block >= 0}) if apart else [None]
    pools = [[n for n, block in enumerate(blocks) if block >= 0 and name in (None, block)] for name in names]
    parts = (view.features, view.tower.received, view.tower.single, view.tower.keys)
    made: dict[int, torch.Tensor] = {}
    for pool, budget in zip(pools, evenly([len(pool) for pool in pools], share), strict=True):
        if budget:
            result = brute(method, Image(*(part[pool].double().numpy() for part in parts)), budget)
            kept = [pool[token] for token in result.kept]
            rows = view.features[kept] if result.features is None else torch.from_numpy(result.features).float()
            made |= dict(zip(kept, rows, strict=True))
    return Selection(torch.tensor(sorted(made)), torch.stack([made[token] for token in sorted(made)]))


@pytest.mark.parametrize("form", ["one", "two", "video"])
@pytest.mark.parametrize("kind", KINDS)
def test_inside_a_family_a_prompt_holds_what_loops_choose(model: Adapter, kind: Any, form: str) -> None:
    method = kind(keep=Budget.parse("0.3"))
    with model.seams():
        tree = Tree(model, sample(form), [method])
        leaf, prompt, whole = tree.leaf(method), tree.prompt((None, method)), tree.prompt((None, None))
        shown = views(model, form)
    count = sum(len(view.features) for view in shown)
    assert (leaf.kept, leaf.of) == (method.keep.of(count), count)
    assert torch.equal(prompt.embeds[0, prompt.image < 0], whole.embeds[0, whole.image < 0]), "text stays as it is"
    for number, (view, share) in enumerate(zip(shown, method.shares(shown), strict=True)):
        chosen = by_hand(method, view, share)
        features = view.features[chosen.kept] if chosen.features is None else chosen.features
        inside = prompt.embeds[0, prompt.image == number]
        torch.testing.assert_close(inside, features, rtol=1e-4, atol=1e-4)
        if model.positions_after_pruning == "original":
            assert torch.equal(
                prompt.positions[:, 0, prompt.image == number],
                whole.positions[:, 0, whole.image == number][:, chosen.kept],
            )


@pytest.mark.parametrize("form", ["one", "both"])
def test_sharing_a_tree_with_other_methods_and_samples_changes_nothing(model: Adapter, form: str) -> None:
    methods: list[Any] = [kind(keep=Budget.parse("0.3")) for kind in KINDS]
    others: list[Any] = [Dense(), RandomVisual(keep=Budget.parse("0.3"))]
    with model.seams():
        together = Tree(model, sample(form), [*methods, *others])
        Tree(model, sample("text"), methods).leaf(methods[0])
        for method in [*methods, *others]:
            ours, alone = together.leaf(method), Tree(model, sample(form), [method]).leaf(method)
            assert (ours.kept, ours.token, ours.position) == (alone.kept, alone.token, alone.position)
            pairs = zip(ours.cache, alone.cache, strict=True)
            assert all(
                torch.equal(one.keys, other.keys) and torch.equal(one.values, other.values) for one, other in pairs
            )


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_alone_is_the_dense_prompt_and_no_method_is_asked(
    model: Adapter, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> list[Selection]:
        raise AssertionError("there is nothing to choose from")

    monkeypatch.setattr(PerImage, "select", never)
    method = kind(keep=Budget.parse("0.1"))
    with model.seams():
        ours = Tree(model, sample("text"), [method]).leaf(method)
        dense = Tree(model, sample("text"), [Dense()]).leaf(Dense())
    assert (ours.token, ours.position, ours.kept, ours.of) == (dense.token, dense.position, 0, 0)
    assert all(torch.equal(one.keys, other.keys) for one, other in zip(ours.cache, dense.cache, strict=True))


def test_the_tower_is_looked_at_only_for_methods_that_ask(model: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    encode = type(model).encode
    monkeypatch.setattr(
        type(model),
        "encode",
        lambda self, inputs, looking=False: (asked.append(looking), encode(self, inputs, looking))[1],
    )
    for kind, expected in (
        (DivPrune, False),
        (RandomVisual, False),
        (VisionZip, True),
        (VisPruner, True),
        (PruMergePlain, True),
    ):
        method: VisualPart = kind(keep=Budget.parse("0.3"))
        with model.seams():
            Tree(model, sample("one"), [method]).leaf(method)
        assert asked.pop() is expected
