"""Prompts that are prefilled side by side: what each leaves is what it leaves alone, and what breaks breaks alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from forms import sample

from effivlm.compression.base import Method, Selection, Stage
from effivlm.methods.dart import Dart
from effivlm.methods.dense import Dense
from effivlm.methods.fastv import FastV
from effivlm.methods.pyramiddrop import PyramidDrop
from effivlm.methods.random_visual import RandomVisual
from effivlm.methods.snapkv import SnapKv
from effivlm.methods.visionzip import VisionZip
from effivlm.models._adapter import Adapter
from effivlm.records import Budget
from effivlm.run import together
from effivlm.run.tree import Tree
from effivlm.seams.lanes import Lane, side_by_side

KINDS: Sequence[Any] = (RandomVisual, VisionZip, FastV, Dart, PyramidDrop)


@pytest.fixture
def pays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Side by side also on this device, in this precision."""
    monkeypatch.setattr(together, "side_by_side_pays", lambda model: True)


def methods() -> list[Method]:
    made: list[Method] = [kind(keep=Budget.parse(keep)) for kind in KINDS for keep in ("0.6", "0.3")]
    return [Dense(), *made, FastV(keep=Budget.parse("0.5"), layer=1)]


def passes(model: Adapter, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many entries enter the decoder, pass by pass."""
    seen: list[int] = []
    stock = model.prefill_all

    def noting(prompt: Any, *given: Any) -> Any:
        seen.append(prompt.length)
        return stock(prompt, *given)

    monkeypatch.setattr(model, "prefill_all", noting)
    return seen


def usable(model: Adapter, form: str) -> list[Method]:
    found = []
    with model.seams():
        for method in methods():
            try:
                Tree(model, sample(form), [method]).leaf(method)
            except ValueError:
                continue  # the twin has too few layers for it
            found.append(method)
    return found


@pytest.mark.usefixtures("pays")
@pytest.mark.parametrize("form", ["one", "two", "video"])
def test_what_a_method_leaves_side_by_side_is_what_it_leaves_alone(
    model: Adapter, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    those = usable(model, form)
    assert len(those) >= 9
    with model.seams():
        alone = [Tree(model, sample(form), [method]) for method in those]
        expected = [
            (tree.leaf(method), tree.prefilled(tree._path(method)[:3]))
            for tree, method in zip(alone, those, strict=True)
        ]
        seen = passes(model, monkeypatch)
        tree = Tree(model, sample(form), those)
        for method, (leaf, done) in zip(those, expected, strict=True):
            ours, passed = tree.leaf(method), tree.prefilled(tree._path(method)[:3])
            assert (ours.token, ours.kept, ours.of, ours.position) == (leaf.token, leaf.kept, leaf.of, leaf.position)
            torch.testing.assert_close(passed.logits, done.logits, rtol=1e-4, atol=1e-4)
            for mine, theirs in zip(ours.cache, leaf.cache, strict=True):
                torch.testing.assert_close(mine.keys, theirs.keys, rtol=1e-4, atol=1e-4)
                torch.testing.assert_close(mine.values, theirs.values, rtol=1e-4, atol=1e-4)
            for stays, there in zip(passed.stays, done.stays, strict=True):
                assert (stays is None and there is None) or torch.equal(stays, there)
            for view, other in zip(passed.views, done.views, strict=True):
                assert torch.equal(view.visual, other.visual)
    assert len(seen) == 2, "dense by itself, and all others in one pass"


def test_in_float32_on_a_cpu_each_prompt_goes_alone(model: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    those = [Dense(), *(RandomVisual(keep=Budget.parse(keep)) for keep in ("0.6", "0.3"))]
    seen = passes(model, monkeypatch)
    with model.seams():
        tree = Tree(model, sample("one"), those)
        for method in those:
            tree.leaf(method)
    assert len(seen) == 3


@pytest.mark.usefixtures("pays")
def test_what_a_cache_method_watches_goes_alone(model: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    from effivlm.compression.composed import Composed

    budget = Budget.parse("0.5")
    watched = Composed(keep=budget, methods=(RandomVisual(keep=budget), SnapKv(keep=budget)))
    others = [RandomVisual(keep=Budget.parse(keep)) for keep in ("0.6", "0.3")]
    seen = passes(model, monkeypatch)
    with model.seams():
        tree = Tree(model, sample("one"), [watched, *others])
        for method in (watched, *others):
            tree.leaf(method)
    assert len(seen) == 2


@pytest.mark.usefixtures("pays")
def test_no_pass_takes_more_entries_than_it_may(model: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    those = [RandomVisual(keep=Budget.parse(keep)) for keep in ("0.9", "0.8", "0.7", "0.6")]
    with model.seams():
        lengths = [Tree(model, sample("one"), [one]).leaf(one).start.position for one in those]
        longest = Tree(model, sample("one"), [those[0]]).prefilled((None, those[0], None)).prompt.length
        monkeypatch.setattr(together, "MOST", 2 * longest)
        seen = passes(model, monkeypatch)
        tree = Tree(model, sample("one"), those)
        for method in those:
            tree.leaf(method)
    assert len(lengths) == len(those)
    assert len(seen) == 2
    assert max(seen) <= 2 * longest


@pytest.mark.usefixtures("pays")
def test_a_pass_that_runs_out_of_memory_is_halved_and_says_so(model: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    those = [RandomVisual(keep=Budget.parse(keep)) for keep in ("0.9", "0.8", "0.7", "0.6")]
    stock = together.prefilled_together

    def full(model: Any, wanted: Any, *given: Any) -> Any:
        if len(wanted) > 2:
            raise torch.OutOfMemoryError("no room for so many\nand more")
        return stock(model, wanted, *given)

    monkeypatch.setattr(together, "prefilled_together", full)
    with model.seams():
        tree = Tree(model, sample("one"), those)
        leaves = [tree.leaf(method) for method in those]
        alone = [Tree(model, sample("one"), [method]).leaf(method) for method in those]
    assert [leaf.token for leaf in leaves] == [leaf.token for leaf in alone]
    assert tree.beside.short == ["no room for so many"]


@dataclass(frozen=True, kw_only=True)
class Breaking(FastV):
    def select(self, stage: Stage, budget: int, sample_id: str) -> Selection:
        raise ZeroDivisionError("nothing to choose from")


@pytest.mark.usefixtures("pays")
def test_a_method_that_breaks_in_a_pass_breaks_alone(model: Adapter) -> None:
    budget = Budget.parse("0.5")
    bad, good = Breaking(keep=budget, layer=1), FastV(keep=budget, layer=1)
    with model.seams():
        tree = Tree(model, sample("one"), [good, bad])
        token = tree.leaf(good).token
        assert token == Tree(model, sample("one"), [good]).leaf(good).token
        with pytest.raises(ZeroDivisionError, match="nothing to choose from"):
            tree.leaf(bad)


def test_a_prompt_without_a_lane_is_refused(model: Adapter) -> None:
    with (
        pytest.raises(ValueError, match="2 prompts, but lanes of"),
        side_by_side(model.layers, [3, 4], [Lane(0)], model.device),
    ):
        pass


def test_a_decoder_that_never_ran_is_an_error(model: Adapter) -> None:
    with pytest.raises(RuntimeError, match="never reached"), side_by_side(model.layers, [3], [Lane(0)], model.device):
        pass
