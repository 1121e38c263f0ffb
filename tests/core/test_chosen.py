"""What a method chose is looked at before it counts: entries kept twice, out of order or out of range fail their cell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar

import pytest
import torch
import twins
from hypothesis import given, strategies
from toy_task import Toy, cells

from effivlm import registry
from effivlm.compression.base import CachePart, ImageView, LayerPart, LayerView, Selection, Stage, VisualPart
from effivlm.compression.choose import refuse
from effivlm.decoding.caches import KeptLayer
from effivlm.models._adapter import Adapter
from effivlm.models._sources import resolve
from effivlm.records import Settings
from effivlm.run.chosen import disorder
from effivlm.run.faults import Ill
from effivlm.run.group import open_model, run_group

DENSE, PLANTED, SNAPKV = cells(methods=["dense", "tova", "snapkv"], keeps=("0.30",))[:3]
Bend = Callable[[torch.Tensor], torch.Tensor]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    folder = twins.build("qwen2_vl", tmp_path_factory.mktemp("chosen"))
    return open_model(resolve(f"twin={folder}"), Settings())


@dataclass(frozen=True, kw_only=True)
class Cache(CachePart):
    bend: ClassVar[Bend]

    def select(self, view: LayerView, budget: int, sample_id: str) -> torch.Tensor:
        return type(self).bend(torch.arange(budget)).expand(len(view.keys), -1)


@dataclass(frozen=True, kw_only=True)
class Visual(VisualPart):
    bend: ClassVar[Bend]

    def select(self, views: Sequence[ImageView], sample_id: str) -> list[Selection]:
        pairs = zip(views, self.shares(views), strict=True)
        return [Selection(type(self).bend(view.real[:share])) for view, share in pairs]


@dataclass(frozen=True, kw_only=True)
class Layer(LayerPart):
    bend: ClassVar[Bend]

    def stages(self, depth: int) -> tuple[int, ...]:
        return (1,)

    def rows(self, visual: torch.Tensor) -> int:
        return 1

    def select(self, stage: Stage, budget: int, sample_id: str) -> Selection:
        return Selection(type(self).bend(stage.visual.nonzero()[:budget, 0]))


BENT: list[tuple[type, Bend, str]] = [
    (Cache, torch.zeros_like, "not ascending, or one of them stays twice"),
    (Cache, lambda chosen: chosen.flip(0), "not ascending, or one of them stays twice"),
    (Visual, lambda chosen: chosen.flip(0), "select() of Bent gave token numbers that are not ascending"),
    (Visual, lambda chosen: chosen[:1].expand(len(chosen)), "or one of them twice"),
    (Visual, lambda chosen: chosen - len(chosen), "select() of Bent gave token numbers from -"),
    (Visual, lambda chosen: chosen + 1000, "where there are 0 to "),
    (Visual, lambda chosen: chosen.float(), "of torch.float32 as the tokens that stay"),
    (Layer, lambda chosen: chosen.flip(0), "select() of Bent gave token numbers that are not ascending"),
    (Layer, lambda chosen: chosen - 1000, "where there are 0 to "),
]


@pytest.mark.parametrize(("base", "bend", "reason"), BENT)
def test_a_choice_that_counts_for_more_than_it_keeps_fails_its_cell(
    base: type, bend: Bend, reason: str, model: Adapter, toy_task: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy_task.forms = ("one",)
    load, bent = registry.load, type("Bent", (base,), {"bend": staticmethod(bend)})
    monkeypatch.setattr(registry, "load", lambda what, name: bent if name == "tova" else load(what, name))
    found = {one.cell: one for one in run_group([DENSE, PLANTED, SNAPKV], model, Settings(limit=1))}
    assert reason in found[PLANTED].reason
    assert {cell: one.status for cell, one in found.items()} == {DENSE: "ok", PLANTED: "failed", SNAPKV: "ok"}


@pytest.mark.parametrize(
    ("indices", "lengths", "wrong"),
    [
        ([[0, 3, 9], [1, 2, 3]], None, False),
        ([[0, 3, 3], [1, 2, 3]], None, True),
        ([[0, 3, 9], [1, 2, 0]], (3, 2), False),  # what stands behind the end of a head is padding
        ([[0, 3, 0], [1, 1, 0]], (2, 2), True),
        ([[], []], None, False),
    ],
)
def test_heads_are_looked_at_up_to_their_ends(
    indices: list[list[int]], lengths: tuple[int, ...] | None, wrong: bool
) -> None:
    at = torch.tensor(indices, dtype=torch.int64)
    entries = torch.zeros(*at.shape, 4)
    (found,) = refuse(disorder([KeptLayer(entries, entries, lengths, at)]))
    assert (found is not None) is wrong


@given(data=strategies.data())
def test_layers_that_are_looked_at_together_are_looked_at_each_by_itself(data: strategies.DataObject) -> None:
    """Layers may differ in heads and in their kind of whole numbers, and one row may be told for all heads."""
    layers, wrong = [], False
    for _ in range(data.draw(strategies.integers(1, 4))):
        heads, size = data.draw(strategies.integers(1, 3)), data.draw(strategies.integers(0, 5))
        kind, shared = data.draw(strategies.sampled_from([torch.int32, torch.int64])), data.draw(strategies.booleans())
        numbers = strategies.lists(strategies.integers(0, 9), min_size=size, max_size=size)
        told = strategies.lists(numbers.map(sorted) | numbers, min_size=heads, max_size=heads)
        rows = data.draw(told)[: 1 if shared else heads]
        ends = strategies.lists(strategies.integers(0, size), min_size=heads, max_size=heads).map(tuple)
        lengths = data.draw(strategies.none() | ends)
        there = zip(rows * heads if shared else rows, lengths or (size,) * heads, strict=True)
        wrong |= any(later <= earlier for row, end in there for earlier, later in pairwise(row[:end]))
        entries = torch.zeros(heads, size, 4)
        layers.append(KeptLayer(entries, entries, lengths, torch.tensor(rows, dtype=kind).view(len(rows), size)))
    unnoted = KeptLayer(torch.zeros(heads, 3, 4), torch.zeros(heads, 3, 4))
    (found,) = refuse(disorder([*layers, unnoted]))
    assert (found is not None) is wrong


@pytest.mark.parametrize(
    ("shape", "lengths", "reason"),
    [
        ((3,), None, r"are told as \[3\]; \[heads, entries\] is wanted"),
        ((1, 2, 3), None, r"are told as \[1, 2, 3\]"),
        ((2, 3), (3, 3, 3), "are told of 2 heads, and lengths of 3"),
    ],
)
def test_entries_that_are_not_told_by_head_are_refused(
    shape: tuple[int, ...], lengths: tuple[int, ...] | None, reason: str
) -> None:
    entries = torch.zeros(2, 3, 4)
    with pytest.raises(Ill, match=reason):
        disorder([KeptLayer(entries, entries, lengths, torch.zeros(shape, dtype=torch.long))])


@dataclass(frozen=True, kw_only=True)
class Shared(Cache):
    """Tells one row for all heads, of every other layer."""

    bend: ClassVar[Bend] = staticmethod(lambda chosen: chosen)

    def layers(self, views: Sequence[LayerView], budgets: Sequence[int], sample_id: str) -> list[KeptLayer]:
        whole = super().layers(views, budgets, sample_id)
        return [
            replace(layer, indices=layer.indices[:1]) if number % 2 and layer.indices is not None else layer
            for number, layer in enumerate(whole)
        ]


def test_a_method_may_tell_one_row_of_entries_for_all_heads_of_a_layer(
    model: Adapter, toy_task: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = registry.load
    monkeypatch.setattr(registry, "load", lambda what, name: Shared if name == "tova" else load(what, name))
    found = {one.cell: one for one in run_group([DENSE, PLANTED], model, Settings(limit=2))}
    assert (found[PLANTED].status, found[PLANTED].broken) == ("ok", 0), found[PLANTED].reason
