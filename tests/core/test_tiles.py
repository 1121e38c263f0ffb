"""Choosing inside every tile and frame: how many of each, that none looks at another, and whose a packed token is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from brute_visual import evenly
from forms import picture
from hypothesis import given, settings
from hypothesis import strategies as st
from test_methods import grids, tower
from test_tower import packed

from effivlm.compression.base import ImageView
from effivlm.compression.per_image import Seen
from effivlm.compression.places import blocks_of, grids_of
from effivlm.methods.divprune import DivPrune
from effivlm.methods.prumerge_plain import PruMergePlain
from effivlm.methods.prumerge_plus import PruMergePlus
from effivlm.methods.visionzip import VisionZip
from effivlm.methods.vispruner import VisPruner
from effivlm.models._adapter import Adapter
from effivlm.records import Budget, Sample
from effivlm.seams.hooks import Tower

KINDS = [VisionZip, VisPruner, PruMergePlain, PruMergePlus]
KEEPS = st.fractions(min_value="1/100", max_value="99/100", max_denominator=100).map(Budget)


def shown(seed: int, sizes: list[tuple[int, int]], marker: bool = True) -> ImageView:
    """An image of tiles with these rows and columns, and a newline marker."""
    places = torch.cat([grids([(1, *size, False)])[0] + torch.tensor([n, 0, 0]) for n, size in enumerate(sizes)])
    places = torch.cat([places, torch.full((1, 3), -1)]) if marker else places
    features = torch.randn(len(places), 6, generator=torch.Generator().manual_seed(seed))
    return ImageView(features, places, tower(seed, places))


def counts(view: ImageView, kept: torch.Tensor) -> list[int]:
    return [int(torch.isin(block, kept).sum()) for block in blocks_of(view.places)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_loud_tile_takes_nothing_from_a_quiet_one(kind: Any) -> None:
    (places,) = grids([(2, 8, 8, False)])
    rng = torch.Generator().manual_seed(0)
    loud, quiet = (scale * torch.randn(64, generator=rng) for scale in (3, 0.1))
    received = torch.cat([loud.softmax(0), quiet.softmax(0)])
    features, keys = torch.randn(128, 16, generator=rng), torch.randn(128, 2, 8, generator=rng)
    view = ImageView(features, places, Tower(received, received, keys))
    keep = Budget.parse("0.125")
    (apart,) = kind(keep=keep).select([view], "s")
    assert counts(view, apart.kept) == [8, 8]
    (together,) = kind(keep=keep, **kind.presets["joint"]).select([view], "s")
    assert together.kept.tolist() != apart.kept.tolist()
    pooled = {VisionZip: [4, 12], PruMergePlain: [2, 14]}
    assert counts(view, together.kept) == pooled.get(kind, [8, 8])


@pytest.mark.parametrize("preset", ["paper", "joint"])
@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=20)
@given(
    seed=st.integers(0, 10**6),
    sizes=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=5),
    keep=KEEPS,
)
def test_every_tile_keeps_what_it_would_keep_as_an_image_of_its_own(kind, preset, seed, sizes, keep) -> None:
    method, view = kind(keep=keep, **kind.presets[preset]), shown(seed, sizes)
    (share,) = method.shares([view])
    (chosen,) = method.select([view], "s")
    assert chosen.kept.tolist() == sorted(set(chosen.kept.tolist()))
    assert len(chosen.kept) == share == min(keep.of(len(view.features)), len(view.real))
    pools = blocks_of(view.places) if preset == "paper" else [view.real]
    expected: dict[int, torch.Tensor] = {}
    for pool, budget in zip(pools, evenly([len(pool) for pool in pools], share), strict=True):
        if budget:
            own = view.tower and Tower(
                *(part[pool] for part in (view.tower.received, view.tower.single, view.tower.keys))
            )
            part = method.choose(Seen(view.features[pool], own), budget)
            rows = view.features[pool[part.kept]] if part.features is None else part.features
            expected |= dict(zip(pool[part.kept].tolist(), rows, strict=True))
    assert chosen.kept.tolist() == sorted(expected)
    rows = view.features[chosen.kept] if chosen.features is None else chosen.features
    assert torch.equal(rows, torch.stack([expected[token] for token in sorted(expected)]))


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 25), KEEPS)
def test_tiles_of_one_size_keep_equally_many(kind, seed, tiles, patches, keep) -> None:
    view = shown(seed, [(1, patches)] * tiles, marker=False)
    (chosen,) = kind(keep=keep).select([view], "s")
    found = counts(view, chosen.kept)
    assert sum(found) == keep.of(tiles * patches)
    assert max(found) - min(found) <= 1
    assert found == sorted(found, reverse=True), "what is left over goes to the first"


@pytest.mark.parametrize("kind", KINDS)
def test_what_one_tile_shows_changes_nothing_in_another(kind: Any) -> None:
    view = shown(3, [(4, 5), (5, 5)], marker=False)
    assert view.tower is not None
    first = view.places[:, 0] == 0
    other = shown(4, [(4, 5), (5, 5)], marker=False)
    assert other.tower is not None
    mixed = ImageView(
        torch.where(first[:, None], view.features, other.features),
        view.places,
        Tower(
            torch.where(first, view.tower.received, other.tower.received),
            torch.where(first, view.tower.single, other.tower.single),
            torch.where(first[:, None, None], view.tower.keys, other.tower.keys),
        ),
    )
    method = kind(keep=Budget.parse("0.4"))
    ours, theirs = (method.select([one], "s")[0] for one in (view, mixed))
    assert ours.kept[first[ours.kept]].tolist() == theirs.kept[first[theirs.kept]].tolist()
    if ours.features is not None and theirs.features is not None:
        assert torch.equal(ours.features[first[ours.kept]], theirs.features[first[theirs.kept]])


@pytest.mark.parametrize("preset", ["paper", "joint"])
@pytest.mark.parametrize("kind", KINDS)
def test_everything_kept_is_dense_whatever_the_scope(kind: Any, preset: str) -> None:
    assert kind(keep=Budget.parse("1"), **kind.presets[preset]).parts == ()


@pytest.mark.parametrize("kind", KINDS)
def test_another_scope_is_refused_by_name(kind: Any) -> None:
    with pytest.raises(ValueError, match="scope 'crop' is neither 'tile' nor 'image'"):
        kind(scope="crop")
    assert kind.presets["paper"] == {}
    assert kind().scope == "tile"
    assert not hasattr(DivPrune(), "scope"), "DivPrune's authors compare all tokens of an image"


@pytest.mark.parametrize("model", ["llava_onevision"], indirect=True)
@pytest.mark.parametrize(
    ("width", "height", "most"),
    [(100, 30, 9), (30, 100, 9), (64, 64, 9), (33, 90, 9), (60, 50, 1), (64, 60, 2), (70, 64, 1), (33, 90, 1)],
)
def test_packed_tokens_belong_to_the_tile_that_gives_them_most(
    model: Adapter, width: int, height: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for holder in (model.model.config, model.processor):
        monkeypatch.setattr(holder, "vision_aspect_ratio", f"anyres_max_{most}")
    with model.seams():
        inputs = model.prepare(Sample("s", "What?", ("x",), (picture(width, height, 5),), ()))
        visual = model.encode(inputs, looking=True)
    (places,) = visual.places
    crops = len(inputs["pixel_values"][0])
    named = [np.repeat(np.eye(crops)[[number]], 16, 0) for number in range(crops)]
    parts = packed(named, width, height, 4, most)
    assert len(parts) == len(places)
    for place, part in zip(places.tolist(), parts, strict=True):
        if place[0] < 0:
            assert not part.any(), "a newline marker"
        else:
            assert part[place[0]] >= part.max() - 1e-6
            assert part[: place[0]].max(initial=0) < part[place[0]] + 1e-6
    assert set(places[:, 0].tolist()) == {-1, *range(crops)}
    whole, tiles = grids_of(places)
    assert whole.tolist() == list(range(16))
    rows = int(places[tiles, 1].max()) + 1
    assert torch.equal(places[tiles, 1:], torch.cartesian_prod(torch.arange(rows), torch.arange(len(tiles) // rows)))


@pytest.mark.parametrize("model", ["llava_onevision"], indirect=True)
def test_the_whole_picture_and_its_tiles_keep_equally_many(model: Adapter) -> None:
    with model.seams():
        inputs = model.prepare(Sample("s", "What?", ("x",), (picture(64, 64, 2),), ()))
        visual = model.encode(inputs, looking=True)
    assert visual.towers is not None
    view = ImageView(visual.features[0], visual.places[0], visual.towers[0])
    assert [len(block) for block in blocks_of(view.places)] == [16] * 5
    (chosen,) = VisionZip(keep=Budget.parse("0.34")).select([view], "s")
    assert counts(view, chosen.kept) == [6, 6, 6, 6, 6]
