"""Prompts that are pruned inside the decoder take its first layers from the whole prompt's prefill, to the last bit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from forms import sample

from effivlm.compression.base import Method
from effivlm.compression.composed import Composed
from effivlm.methods.dart import Dart
from effivlm.methods.dense import Dense
from effivlm.methods.fastv import FastV
from effivlm.methods.pyramiddrop import PyramidDrop
from effivlm.methods.snapkv import SnapKv
from effivlm.models._adapter import Adapter
from effivlm.records import Budget
from effivlm.run.tree import Tree
from effivlm.seams.heads import Head


def methods() -> list[Method]:
    kinds: Sequence[Any] = (FastV, Dart, PyramidDrop)
    made: list[Method] = [kind(keep=Budget.parse(keep)) for kind in kinds for keep in ("0.6", "0.3")]
    wide = FastV(keep=Budget.parse("0.5"), query_rows="all")
    return [Dense(), *made, wide, FastV(keep=Budget.parse("0.5"), layer=1)]


def usable(model: Adapter) -> list[Method]:
    """Those whose stages the twin has layers for."""
    found = []
    for method in methods():
        try:
            Tree(model, sample("one"), [method]).leaf(method)
        except ValueError:
            continue
        found.append(method)
    return found


def first_layers(model: Adapter) -> tuple[list[int], Any]:
    """A list that grows whenever the first layer of the decoder computes, and the hook's handle."""
    seen: list[int] = []
    handle = model.layers[0].mlp.register_forward_hook(lambda *given: seen.append(given[1][0].shape[1]))  # type: ignore[union-attr]
    return seen, handle


def test_a_pruned_prompt_leaves_what_it_leaves_alone_without_the_first_layers_of_its_own(model: Adapter) -> None:
    with model.seams():
        those = usable(model)
        assert len(those) >= 6
        alone = [Tree(model, sample("one"), [method]) for method in those]
        expected = [
            (tree.leaf(method), tree.prefilled(tree._path(method)[:3]))
            for tree, method in zip(alone, those, strict=True)
        ]
        seen, handle = first_layers(model)
        tree = Tree(model, sample("one"), those)
        try:
            for method, (leaf, done) in zip(those, expected, strict=True):
                ours, passed = tree.leaf(method), tree.prefilled(tree._path(method)[:3])
                assert (ours.token, ours.kept, ours.position) == (leaf.token, leaf.kept, leaf.position)
                assert torch.equal(passed.logits, done.logits)
                for mine, theirs in zip(ours.cache, leaf.cache, strict=True):
                    assert torch.equal(mine.keys, theirs.keys)
                    assert torch.equal(mine.values, theirs.values)
                for stays, there in zip(passed.stays, done.stays, strict=True):
                    assert (stays is None and there is None) or torch.equal(stays, there)
        finally:
            handle.remove()
        adds = tree.prompt((None, None)).deep is not None
    assert len(seen) == (len(those) if adds else 1), "the tower adds behind the first layers: there each goes by itself"


def test_a_prompt_whose_layers_are_watched_computes_all_of_them(model: Adapter) -> None:
    pruned = FastV(keep=Budget.parse("0.5"), layer=1)
    both = Composed(keep=pruned.keep, seed=0, methods=(pruned, SnapKv(keep=Budget.parse("0.5"))))
    with model.seams():
        seen, handle = first_layers(model)
        try:
            tree = Tree(model, sample("one"), [Dense(), both])
            tree.leaf(Dense())
            tree.leaf(both)
        finally:
            handle.remove()
    assert len(seen) == 2


def test_layers_that_were_spared_compute_again_also_after_an_error(model: Adapter) -> None:
    nothing = torch.zeros(1, 1, 1)
    head = Head(1, nothing, nothing, [nothing], [nothing])
    own = [vars(layer).get("forward") for layer in model.layers]

    def broken() -> None:
        with head.resumed(model.layers, lambda *_: 0):
            assert vars(model.layers[0])["forward"] is not own[0]
            raise KeyError

    with pytest.raises(KeyError):
        broken()
    assert [vars(layer).get("forward") for layer in model.layers] == own
