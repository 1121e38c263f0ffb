"""The study's own methods change the one thing that they name."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from forms import sample

from bench_tests.studies.observations import mass
from bench_tests.studies.observations.variants.layerwise import Layerwise
from bench_tests.studies.observations.variants.merging import Folding
from bench_tests.studies.observations.variants.one_choice import SharedColumns, SharedQuestion, SharedWindow
from bench_tests.studies.observations.variants.sinks import SINKS, LookedAt, RecentOnly, Robbed, TowerLooked
from effivlm.compression.base import ImageView, LayerView, Method, Stage
from effivlm.methods.dense import Dense
from effivlm.methods.fastv import FastV
from effivlm.methods.h2o import H2o
from effivlm.methods.look_m import LookM
from effivlm.methods.snapkv import SnapKv
from effivlm.methods.streaming_llm import StreamingLlm
from effivlm.methods.visionzip import VisionZip
from effivlm.methods.vl_cache import VlCache
from effivlm.models._adapter import Adapter
from effivlm.records import Budget, Unsupported
from effivlm.run.tree import Tree
from effivlm.seams.columns import received
from effivlm.seams.hooks import Tower

LENGTH, HEADS, KV = 60, 4, 2
VISUAL = torch.arange(LENGTH) < 40


def view(seed: int = 0) -> LayerView:
    rng = torch.Generator().manual_seed(seed)
    queries, keys = torch.randn(HEADS, LENGTH, 8, generator=rng), torch.randn(KV, LENGTH, 8, generator=rng)
    return LayerView(queries, keys, keys, VISUAL, 1, received(queries, keys))


def kept(method: Any, keep: str) -> torch.Tensor:
    method = replace(method, keep=Budget.parse(keep))
    found: torch.Tensor = method.select(view(), method.keep.of(LENGTH), "s")
    return found


@pytest.mark.parametrize(
    ("ours", "theirs", "changed"),
    [
        (Layerwise(), SnapKv(), {"window"}),
        (SharedWindow(**SharedWindow.presets["paper"]), SnapKv(), {"head_shared"}),
        (SharedColumns(**SharedColumns.presets["paper"]), H2o(), {"head_shared"}),
        (SharedQuestion(**SharedQuestion.presets["paper"]), VlCache(), {"head_shared"}),
        (RecentOnly(**RecentOnly.presets["paper"]), StreamingLlm(), {"sinks"}),
        (Folding(**Folding.presets["nothing"]), LookM(), {"merge"}),
        (Folding(**Folding.presets["across"]), LookM(), set()),
        (Folding(**Folding.presets["within"]), LookM(), {"merge_scope"}),
        (Folding(**Folding.presets["plain_within"]), LookM(), {"merge_scope", "prior"}),
        (LookedAt(), FastV(), set()),
        (TowerLooked(), VisionZip(), set()),
    ],
)
def test_a_variant_differs_in_what_it_names_alone(ours: Method, theirs: Method, changed: set[str]) -> None:
    shared = {one.name for one in fields(theirs)}
    assert {name for name in shared if getattr(ours, name) != getattr(theirs, name)} == changed


def test_without_sinks_all_that_stays_is_recent() -> None:
    assert kept(RecentOnly(sinks=0), "0.20").tolist() == [[*range(48, 60)]] * KV
    assert kept(StreamingLlm(), "0.20").tolist() == [[*range(4), *range(52, 60)]] * KV


@pytest.mark.parametrize("visual", [True, False])
def test_exactly_the_most_attended_of_one_modality_go(visual: bool) -> None:
    seen = view()
    assert seen.received is not None
    stays = kept(Robbed(visual=visual), "0.90")
    by_head = seen.received.unflatten(0, (KV, -1)).mean(1)
    able = (VISUAL if visual else ~VISUAL) & (torch.arange(LENGTH) < LENGTH - 8)
    for head in range(KV):
        gone = sorted({*range(LENGTH)} - {*stays[head].tolist()})
        order = sorted(able.nonzero()[:, 0].tolist(), key=lambda entry: -float(by_head[head, entry]))
        assert gone == sorted(order[:6])


def test_as_many_go_at_random_and_are_others() -> None:
    drawn, worst = kept(Robbed(drawn=True), "0.90"), kept(Robbed(), "0.90")
    assert drawn.shape == worst.shape
    assert drawn.tolist() != worst.tolist()
    gone = [{*range(LENGTH)} - {*row} for row in drawn.tolist()]
    assert all(max(one) < 40 for one in gone)
    assert drawn.equal(kept(Robbed(drawn=True), "0.90"))


def test_more_text_than_there_is_cannot_go() -> None:
    with pytest.raises(Unsupported, match="18 entries cannot go of 12 of their modality"):
        kept(Robbed(visual=False), "0.70")


def chosen(method: FastV) -> set[int]:
    seen = view()
    nothing: Any = None
    stage = Stage(0, 2, seen, nothing, nothing, VISUAL, nothing, nothing, nothing)
    return {*replace(method, keep=Budget.parse("0.20")).select(stage, 8, "s").kept.tolist()}


def test_what_sinks_hold_is_counted_in_a_prefill(model: Adapter) -> None:
    asked = sample("one")
    with torch.inference_mode(), model.seams():
        told = mass.counted(model, asked)
        length = Tree(model, asked, [Dense()]).whole_inputs["input_ids"].shape[1]
    assert told[mass.ENTRIES] == SINKS / length
    assert all(0 <= value <= 1 for value in told.values())
    assert 0 < told[mass.TEXT] < 1
    assert {name for name, _ in told if name.startswith("sinks kept")} == {
        f"sinks kept by {one}" for one in ("fastv", "visionzip")
    }
    assert all(
        value * SINKS == round(value * SINKS) for (name, _), value in told.items() if name.startswith("sinks kept")
    )


def test_fastv_keeps_visual_sinks_for_certain_or_never() -> None:
    seen = view()
    got = received(seen.queries, seen.keys).mean(0)[VISUAL]
    sinks = {*got.topk(SINKS).indices.tolist()}
    assert sinks <= chosen(LookedAt())
    assert not sinks & chosen(LookedAt(guard=False))
    assert len(chosen(LookedAt())) == len(chosen(LookedAt(guard=False))) == 8
    assert chosen(LookedAt(guard=False)) - chosen(FastV()) != chosen(LookedAt()) - chosen(FastV())


def test_what_the_tower_attends_most_is_not_kept_as_it_is() -> None:
    rng = torch.Generator().manual_seed(0)
    got = torch.rand(36, generator=rng)
    tower = Tower(got, got, torch.randn(36, 2, 4, generator=rng))
    grid = torch.cartesian_prod(torch.tensor([0]), torch.arange(6), torch.arange(6))
    seen = ImageView(torch.randn(36, 8, generator=rng), grid, tower)
    ours, theirs = (
        {*kind(keep=Budget.parse("0.25"), context=0.0).select([seen], "s")[0].kept.tolist()}
        for kind in (TowerLooked, VisionZip)
    )
    most = {*got.topk(SINKS).indices.tolist()}
    assert most <= theirs
    assert not most & ours
    assert ours == {*got.topk(SINKS + 9).indices.tolist()} - most
    assert seen.tower is tower
    assert tower.received is got
