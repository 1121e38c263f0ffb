"""What is captured of the vision tower, against the whole attention written out in float64 from the tower's own weights."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from forms import picture, sample
from numpy.typing import NDArray

from effivlm.models._adapter import Adapter, Visual
from effivlm.models._tower import brought, feeding
from effivlm.records import Sample
from effivlm.seams import columns
from effivlm.seams.columns import received_by_all
from effivlm.seams.hooks import Tower

Array = NDArray[np.float64]
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def attention_of(model: Adapter, layer: int = -1) -> Any:
    core = model.model.model
    if model.model_type == "qwen2_vl":
        return core.visual.blocks[layer].attn
    if model.model_type == "internvl":
        return core.vision_tower.encoder.layer[layer].attention
    return getattr(core.vision_tower, "vision_model", core.vision_tower).encoder.layers[layer].self_attn


def looked_at(model: Adapter, shown: Sample, layer: int = -1) -> tuple[Visual, list[tuple[Any, dict[str, Any]]]]:
    """What the adapter captured, and what entered the attention module in each of its calls."""
    entered: list[tuple[Any, dict[str, Any]]] = []

    def note(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        entered.append((kwargs.get("hidden_states", args[0] if args else None), kwargs))

    handle = attention_of(model, layer).register_forward_pre_hook(note, with_kwargs=True)
    try:
        with model.seams():
            return model.encode(model.prepare(shown), looking=True), entered
    finally:
        handle.remove()


def softmax(logits: Array) -> Array:
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def projected(linear: Any, hidden: Array) -> Array:
    bias = 0 if linear.bias is None else linear.bias.double().numpy()
    return hidden @ linear.weight.double().numpy().T + bias


def segments(model: Adapter, hidden: torch.Tensor, kwargs: dict[str, Any]) -> list[tuple[Array, Array]]:
    """Queries and keys [P, H, D] of every tile or frame."""
    module, inside = attention_of(model), hidden.double().numpy()
    if model.model_type != "qwen2_vl":
        heads = module.num_heads
        pair = [projected(linear, inside) for linear in (module.q_proj, module.k_proj)]
        return [(q.reshape(len(q), heads, -1), k.reshape(len(k), heads, -1)) for q, k in zip(*pair, strict=True)]
    query, key, _ = projected(module.qkv, inside).reshape(len(inside), 3, module.num_heads, -1).transpose(1, 0, 2, 3)
    cos, sin = (table.double().numpy()[:, None] for table in kwargs["position_embeddings"])

    def turned(states: Array) -> Array:
        half = states.shape[-1] // 2
        return states * cos + np.concatenate([-states[..., half:], states[..., :half]], -1) * sin

    ends = kwargs["cu_seqlens"].tolist()
    return [(turned(query)[a:b], turned(key)[a:b]) for a, b in pairwise(ends)]


def mapped(query: Array, key: Array, class_token: bool) -> Array:
    """[P, 2 + width] of one tile: attention received, the same of one wide head, keys side by side."""
    heads = [softmax(query[:, h] @ key[:, h].T / math.sqrt(key.shape[2])) for h in range(key.shape[1])]
    wide = softmax(query.reshape(len(query), -1) @ key.reshape(len(key), -1).T / math.sqrt(key[0].size))
    flat = key.reshape(len(key), -1)
    if class_token:
        return np.column_stack([np.mean([head[0] for head in heads], 0), wide[0], flat])[1:]
    return np.column_stack([np.mean(heads, (0, 1)), wide.mean(0), flat])


def squares(tile: Array, side: int) -> Array:
    """Means of 2 x 2 neighbours of a grid, row by row."""
    grid = tile.reshape(side, side, -1)
    return np.array([grid[r : r + 2, c : c + 2].mean((0, 1)) for r in range(0, side, 2) for c in range(0, side, 2)])


def bilinear(grid: Array, height: int, width: int) -> Array:
    """Resampling at the centres of the new cells, between the centres of the old ones."""
    rows, columns, _ = grid.shape

    def sides(place: int, new: int, old: int) -> tuple[int, int, float]:
        at = max((place + 0.5) * old / new - 0.5, 0)
        low = min(int(at), old - 1)
        return low, min(low + 1, old - 1), at - low

    made = np.empty((height, width, grid.shape[2]))
    for r in range(height):
        a, b, down = sides(r, height, rows)
        for c in range(width):
            d, e, right = sides(c, width, columns)
            upper = (1 - right) * grid[a, d] + right * grid[a, e]
            made[r, c] = (1 - down) * upper + down * ((1 - right) * grid[b, d] + right * grid[b, e])
    return made


def packed(crops: list[Array], width: int, height: int, side: int, most: int) -> Array:
    """LLaVA-OneVision: the whole picture, then its tiles without the padding, each row ended by zeros."""
    options = [(32, 64), (64, 32), (64, 64)]

    def fit(option: tuple[int, int]) -> tuple[int, int]:
        scale = min(option[1] / width, option[0] / height)
        used = min(int(width * scale) * int(height * scale), width * height)
        return used, used - option[0] * option[1]

    tall, wide = max(options, key=fit)
    rows, columns = tall // 32, wide // 32
    assert len(crops) == 1 + rows * columns
    tiles = [[crops[1 + r * columns + c].reshape(side, side, -1) for c in range(columns)] for r in range(rows)]
    whole = np.concatenate([np.concatenate(row, 1) for row in tiles], 0)
    high, broad = whole.shape[:2]
    if width / height > broad / high:
        pad = (high - int(height * broad / width)) // 2
        whole = whole[pad : high - pad]
    else:
        pad = (broad - int(width * high / height)) // 2
        whole = whole[:, pad : broad - pad]
    ratio = math.sqrt(whole.shape[0] * whole.shape[1] / (most * side**2))
    if ratio > 1.1:
        whole = bilinear(whole, int(whole.shape[0] // ratio), int(whole.shape[1] // ratio))
    ended = np.concatenate([whole, np.zeros((len(whole), 1, whole.shape[2]))], 1)
    return np.concatenate([crops[0], ended.reshape(-1, whole.shape[2])])


def expected(model: Adapter, shown: Sample, entered: list[tuple[Any, dict[str, Any]]], most: int = 9) -> list[Array]:
    """Maps of every image's visual tokens, for one call of the tower a kind, images first."""
    classed = model.model_type == "internvl"
    calls = [[mapped(*pair, classed) for pair in segments(model, *call)] for call in entered]
    if model.model_type == "qwen2_vl":
        maps = [one.reshape(-1, 4, one.shape[1]).mean(1) for call in calls for one in call]
        if not shown.video:
            return maps
        stills = len(shown.images)
        return [*maps[:stills], np.concatenate(maps[stills:])]
    if classed:
        tiles = [squares(one, 4) for call in calls for one in call]
        counts = [len(place) // 4 for place in model.encode(model.prepare(shown)).places]
        starts = np.cumsum([0, *counts])
        return [np.concatenate(tiles[a:b]) for a, b in pairwise(starts)]
    found: list[Array] = []
    if len(shown.images) == 1:
        (image,), crops = shown.images, calls.pop(0)
        found.append(packed(crops, image.width, image.height, 4, most))
    elif shown.images:
        found += [np.concatenate([one, np.zeros((1, one.shape[1]))]) for one in calls.pop(0)]
    if shown.video:
        frames = [bilinear(one.reshape(4, 4, -1), 2, 2).reshape(4, -1) for one in calls.pop(0)]
        found.append(np.concatenate([*frames, np.zeros((1, frames[0].shape[1]))]))
    return found


def check(visual: Visual, maps: list[Array]) -> None:
    assert visual.towers is not None
    assert len(visual.towers) == len(maps) == len(visual.features)
    for tower, place, one in zip(visual.towers, visual.places, maps, strict=True):
        ours = torch.cat([tower.received[:, None], tower.single[:, None], tower.keys.flatten(1)], 1)
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.double(), torch.from_numpy(one), **CLOSE)
        assert bool((tower.received > 0).eq(place[:, 0] >= 0).all()), "markers hold zeros, all others are attended"
        assert not ours[place[:, 0] < 0].any()


@pytest.mark.parametrize("form", ["one", "two", "video", "both"])
def test_a_tower_shows_what_its_whole_attention_written_out_in_float64_shows(model: Adapter, form: str) -> None:
    visual, entered = looked_at(model, sample(form))
    check(visual, expected(model, sample(form), entered))


@pytest.mark.parametrize(("width", "height"), [(100, 30), (30, 100), (64, 64), (33, 90)])
def test_pictures_of_any_shape_are_brought_to_their_tokens(model: Adapter, width: int, height: int) -> None:
    shown = Sample("s", "What?", ("x",), (picture(width, height, 5),), ())
    visual, entered = looked_at(model, shown)
    check(visual, expected(model, shown, entered))


@pytest.mark.parametrize("model", ["llava_onevision"], indirect=True)
def test_tiles_that_are_shrunk_to_a_limit_are_shrunk_alike(model: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    for holder in (model.model.config, model.processor):
        monkeypatch.setattr(holder, "vision_aspect_ratio", "anyres_max_1")
    shown = Sample("s", "What?", ("x",), (picture(60, 50, 3),), ())
    visual, entered = looked_at(model, shown)
    assert visual.counts == [16 + 3 * 5], "48 tokens of 6 rows are more than a crop's 16"
    check(visual, expected(model, shown, entered, most=1))


def test_looking_changes_no_feature_and_without_it_nothing_is_captured(model: Adapter) -> None:
    visual, _ = looked_at(model, sample("both"))
    with model.seams():
        plain = model.encode(model.prepare(sample("both")))
    assert plain.towers is None
    assert all(torch.equal(*pair) for pair in zip(plain.features, visual.features, strict=True))
    assert all(torch.equal(*pair) for pair in zip(plain.places, visual.places, strict=True))


def test_a_text_without_a_picture_shows_no_tower(model: Adapter) -> None:
    with model.seams():
        assert not model.encode(model.prepare(sample("text")), looking=True).towers


@pytest.mark.parametrize("model", ["llava_onevision", "internvl2_5"], indirect=True)
def test_the_layer_that_feeds_the_projector_is_looked_at(model: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model.model.config, "vision_feature_layer", -2)
    ours, entered = looked_at(model, sample("one"), layer=-2)
    monkeypatch.undo()
    theirs, _ = looked_at(model, sample("one"))
    assert entered, "the layer was reached"
    assert ours.towers is not None
    assert theirs.towers is not None
    assert not torch.allclose(ours.towers[0].received, theirs.towers[0].received)
    tower = model.model.model.vision_tower
    assert feeding(tower, -2) is feeding(tower, 1) is feeding(tower, [2, 1]) is attention_of(model, 0)
    assert feeding(tower, 2) is attention_of(model)
    for absent in (0, 3, -3):
        with pytest.raises(ValueError, match=f"hidden state {absent} is not"):
            feeding(tower, absent)


def test_attention_received_does_not_depend_on_the_block_and_needs_no_square(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = torch.Generator().manual_seed(0)
    queries, keys = torch.randn(3, 37, 8, generator=rng), torch.randn(3, 37, 8, generator=rng)
    whole = received_by_all(queries, keys)
    assert float(whole.sum()) == pytest.approx(1, abs=1e-6)
    monkeypatch.setattr(columns, "ELEMENTS", 3 * 37 * 5)
    torch.testing.assert_close(received_by_all(queries, keys), whole)
    monkeypatch.setattr(columns, "ELEMENTS", 1)
    torch.testing.assert_close(received_by_all(queries, keys), whole)


def test_maps_of_another_number_of_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="4 tokens where the image has 5"):
        brought(torch.zeros(4, 2 + 6), torch.zeros(5, 3), 2)
    assert isinstance(brought(torch.zeros(5, 2 + 6), torch.zeros(5, 3), 2), Tower)
