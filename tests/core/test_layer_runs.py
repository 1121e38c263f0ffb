"""Whole prefills that drop tokens in stages, against one masked full forward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
import torch
from forms import sample
from oracle import everything, logits
from torch import Tensor

from effivlm.compression.base import LayerPart, LayerView, Selection, Stage
from effivlm.decoding.caches import KeptLayer
from effivlm.decoding.eager import Start, forced
from effivlm.methods.dart import Dart
from effivlm.methods.dense import Dense
from effivlm.methods.fastv import FastV
from effivlm.methods.pyramiddrop import PyramidDrop
from effivlm.methods.sparsevlm import SparseVlm
from effivlm.models._adapter import Adapter, Prompt
from effivlm.records import Budget, Unsupported
from effivlm.run.tree import Tree

TOKENS = (40, 77, 40, 12, 90)
CLOSE = {"rtol": 0, "atol": 1e-5}
WHOLE = [
    pytest.param(method, id=f"{type(method).__name__}-{number}")
    for number, method in enumerate(
        [
            PyramidDrop(keep=Budget.parse("0.6")),
            PyramidDrop(keep=Budget.parse("0.1"), budget_scope="final"),
            SparseVlm(keep=Budget.parse("0.6")),
            SparseVlm(keep=Budget.parse("0.2"), budget_scope="final"),
            SparseVlm(keep=Budget.parse("0.5"), **SparseVlm.presets["v2"]),
            Dart(keep=Budget.parse("0.4")),
            FastV(keep=Budget.parse("0.7"), budget_scope="average"),
        ]
    )
]


@dataclass
class Spied:
    """What a method was shown and chose, stage by stage, and what the stages' layers were about to see."""

    stages: list[Stage]
    chosen: list[Selection]
    ahead: list[LayerView]


def spy(monkeypatch: pytest.MonkeyPatch, method: LayerPart) -> Spied:
    seen, real = Spied([], [], []), type(method).select

    def select(self: LayerPart, stage: Stage, budget: int, sample_id: str) -> Selection:
        seen.stages.append(stage)
        seen.ahead.append(stage.ahead())
        seen.chosen.append(real(self, stage, budget, sample_id))
        return seen.chosen[-1]

    monkeypatch.setattr(type(method), "select", select)
    return seen


def masked(
    model: Adapter, prompt: Prompt, stays: Sequence[Tensor | None], spied: Spied
) -> tuple[Tensor, dict[int, Tensor]]:
    """Logits of one full forward in which layers may not look at what left, and what entered the stages' layers [N, d]."""
    visible, entered, handles = everything(model, prompt.length + len(TOKENS)), dict[int, Tensor](), []
    for rows, there in zip(visible, stays, strict=True):
        if there is not None:
            gone = torch.ones(prompt.length, dtype=torch.bool)
            gone[there] = False
            gone = gone.nonzero()[:, 0]
            rows[:, :, gone] = False
            rows[:, gone, gone] = True  # a row nobody sees needs something to look at
    for drawn, chosen in zip(spied.stages, spied.chosen, strict=True):
        there = torch.arange(prompt.length) if drawn.there is None else drawn.there

        def enter(_: Any, args: Any, drawn: Stage = drawn, chosen: Selection = chosen, there: Tensor = there) -> Any:
            hidden = args[0].clone()
            entered[drawn.layer] = hidden[0, there].clone()
            if chosen.features is not None:
                hidden[0, there[chosen.kept]] = chosen.features
            return (hidden, *args[1:])

        handles.append(model.layers[drawn.layer].register_forward_pre_hook(enter))
    try:
        return logits(model, prompt, TOKENS, visible), entered
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("form", ["one", "two", "video"])
@pytest.mark.parametrize("method", WHOLE)
def test_pruned_in_stages_equals_a_masked_full_forward(
    model: Adapter, form: str, method: LayerPart, monkeypatch: pytest.MonkeyPatch
) -> None:
    spied = spy(monkeypatch, method)
    with model.seams():
        tree = Tree(model, sample(form), [method, Dense()])
        leaf, dense = tree.leaf(method), tree.leaf(Dense())
        done = tree.prefilled((None, None, method))
        ours = forced(model.step, Start(leaf.cache, 0, leaf.position), TOKENS, model.device)
    prompt, stages = done.prompt, method.stages(len(model.layers))
    assert any(chosen.features is not None for chosen in spied.chosen) == getattr(method, "recycle", False)
    expected, entered = masked(model, prompt, done.stays, spied)
    torch.testing.assert_close(ours, expected, **CLOSE)
    first = stages[0]
    for kept, whole in zip(leaf.cache[:first], dense.cache[:first], strict=True):
        assert torch.equal(kept.keys, whole.keys)
        assert torch.equal(kept.values, whole.values)
    text, counts = prompt.length - leaf.of, method.budgets(leaf.of, len(model.layers))
    lengths = [leaf.of] * first + [
        counts[sum(at <= number for at in stages) - 1] for number in range(first, len(leaf.cache))
    ]
    assert [layer.kept - text for layer in leaf.cache] == lengths
    sets = [set(range(prompt.length)) if there is None else set(there.tolist()) for there in done.stays]
    assert all(late <= early for early, late in pairwise(sets)), "what left does not come back"
    assert all(
        (~prompt.visual).nonzero()[:, 0].tolist() == sorted(one - set(prompt.visual.nonzero()[:, 0].tolist()))
        for one in sets
    )
    for drawn, chosen, ahead in zip(spied.stages, spied.chosen, spied.ahead, strict=True):
        shows_what_stands_there(model, drawn, entered[drawn.layer], leaf.cache, prompt)
        if chosen.features is None:
            mask = ~drawn.visual
            mask[chosen.kept] = True
            torch.testing.assert_close(ahead.keys[:, mask], leaf.cache[drawn.layer].keys, **CLOSE)


def shows_what_stands_there(
    model: Adapter, drawn: Stage, entered: Tensor, cache: Sequence[KeptLayer], prompt: Prompt
) -> None:
    """A stage's fields are those of the layers around it, in the places that are left."""
    assert torch.equal(drawn.embeds, prompt.embeds[0])
    assert torch.equal(drawn.marks, prompt.visual)
    torch.testing.assert_close(drawn.hidden, entered, **CLOSE)
    assert torch.equal(drawn.before.keys, cache[drawn.layer - 1].keys)
    norm = model.text.norm
    torch.testing.assert_close(drawn.normed(), norm(drawn.hidden))
    cosines, sines = drawn.angles
    assert cosines.shape == (len(drawn.hidden), drawn.before.keys.shape[-1])
    torch.testing.assert_close(cosines**2 + sines**2, torch.ones_like(cosines))
    assert drawn.before.layer == drawn.layer - 1
    assert torch.equal(drawn.before.visual, drawn.visual)


@pytest.mark.parametrize("method", WHOLE)
def test_a_question_without_a_picture_is_dense(
    model: Adapter, method: LayerPart, monkeypatch: pytest.MonkeyPatch
) -> None:
    spied = spy(monkeypatch, method)
    with model.seams():
        tree = Tree(model, sample("text"), [method, Dense()])
        leaf, dense = tree.leaf(method), tree.leaf(Dense())
    assert spied.stages == []
    assert (leaf.kept, leaf.of) == (0, 0)
    assert all(torch.equal(ours.keys, theirs.keys) for ours, theirs in zip(leaf.cache, dense.cache, strict=True))


def test_a_budget_under_the_floor_is_refused_with_the_floor(model: Adapter) -> None:
    method = PyramidDrop(keep=Budget.parse("0.05"))
    with (
        model.seams(),
        pytest.raises(
            Unsupported, match=r"keep 0.05 of \d+ visual tokens .* the first 1 see all .* at least 0\.\d+ stay"
        ),
    ):
        Tree(model, sample("one"), [method]).leaf(method)
    assert all(not layer._forward_pre_hooks for layer in model.layers)
