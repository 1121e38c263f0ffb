"""The methods that look at frames, at the question and at stretches: inside the families, and at their edges."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from brute_visual import seen
from forms import sample
from make_pruning_golden import video
from test_methods import grids, tower
from test_visual_methods import Largest

from effivlm.compression import similar
from effivlm.compression.base import ImageView
from effivlm.compression.frames import Clip, clips_of
from effivlm.compression.per_image import Seen
from effivlm.methods.cdpruner import CdPruner
from effivlm.methods.dense import Dense
from effivlm.methods.evs import Evs
from effivlm.methods.fast_vid import FastVid
from effivlm.methods.holov import HoloV
from effivlm.methods.mixkv import MixKv
from effivlm.methods.vidcom2 import VidCom2
from effivlm.models._adapter import Adapter
from effivlm.records import Budget
from effivlm.run.tree import Tree

CLIPS = [Evs, VidCom2, FastVid]


@pytest.mark.parametrize("form", ["one", "two", "video", "both"])
def test_frames_of_every_family_are_one_clip(model: Adapter, form: str) -> None:
    visual = model.encode(model.prepare(sample(form)))
    views = [ImageView(*pair) for pair in zip(visual.features, visual.places, strict=True)]
    clips = clips_of(views)
    assert sum(len(numbers) for clip in clips for _, numbers in clip) == sum(len(view.real) for view in views)
    if form == "video":
        assert len(clips) == 1
        assert len(clips[0]) == (2 if model.model_type == "qwen2_vl" else 4)


@pytest.mark.parametrize("kind", [*CLIPS, CdPruner, HoloV])
@pytest.mark.parametrize("form", ["one", "two", "video", "both", "text"])
def test_a_prompt_of_any_form_keeps_exactly_its_budget_alone_and_in_company(
    model: Adapter, kind: Any, form: str
) -> None:
    method, others = kind(keep=Budget.parse("0.23")), [kind(keep=Budget.parse("0.6")), Dense()]
    with model.seams():
        together = Tree(model, sample(form), [method, *others])
        ours, alone = together.leaf(method), Tree(model, sample(form), [method]).leaf(method)
    assert (ours.kept, ours.of) == (method.keep.of(ours.visual_tokens), ours.visual_tokens)
    assert all(torch.equal(one.keys, other.keys) for one, other in zip(ours.cache, alone.cache, strict=True))


@pytest.mark.parametrize("kind", CLIPS)
def test_frames_told_as_one_image_or_as_many_keep_the_same(kind: Any) -> None:
    clip, _ = video(3, 5, 12, 6)
    (places,) = grids([(5, 3, 4, False)])
    shown = tower(3, places)
    whole = [ImageView(clip.flatten(0, 1), places, shown)]
    parts = [
        ImageView(
            clip[n],
            places[:12],
            type(shown)(*(x[12 * n : 12 * n + 12] for x in (shown.received, shown.single, shown.keys))),
        )
        for n in range(5)
    ]
    method = kind(keep=Budget.parse("0.4"))
    apart = [one.kept + 12 * n for n, one in enumerate(method.select(parts, "s"))]
    assert torch.cat(apart).tolist() == method.select(whole, "s")[0].kept.tolist()


@pytest.mark.parametrize("kind", CLIPS)
def test_equal_frames_and_tokens_give_exact_counts_and_no_nan(kind: Any) -> None:
    for tokens in (torch.ones(4, 6, 5), torch.zeros(4, 6, 5), video(0, 1, 6, 5)[0].expand(4, 6, 5)):
        for budget in (1, 5, 11, 23):
            chosen = kind().choose(Clip(tokens, torch.ones(4, 6)), budget)
            assert len(set(chosen.kept.tolist())) == budget
            assert chosen.features is None or chosen.features.isfinite().all()


@pytest.mark.parametrize("kind", [*CLIPS, CdPruner, HoloV])
def test_no_tensor_of_a_still_picture_grows_with_the_square_of_its_tokens(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    length, dim = 1500, 16
    monkeypatch.setattr(similar, "ELEMENTS", 40_000)
    shown = seen(1, length, dim)
    with Largest() as largest:
        if kind in CLIPS:
            kind().choose(Clip(shown.features[None], shown.shown.received[None]), 300)
        else:
            kind().choose(Seen(shown.features, shown.tower, torch.ones(length)), 300)
    assert 0 < largest.elements <= max(40_000, 2 * length * dim)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (HoloV, {"stretches": 0}),
        (HoloV, {"alpha": -1}),
        (VidCom2, {"channels": 0}),
        (VidCom2, {"temperature": 0}),
        (FastVid, {"cuts": -1}),
        (FastVid, {"step": 0}),
        (FastVid, {"context": 1.5}),
        (FastVid, {"least": -0.1}),
        (CdPruner, {"scope": "page"}),
        (MixKv, {"window": 0}),
    ],
)
def test_impossible_fields_are_refused_with_their_value(kind: Any, values: dict[str, Any]) -> None:
    (value,) = values.values()
    with pytest.raises(ValueError, match=str(value)):
        kind(**values)


@pytest.mark.parametrize("kind", [FastVid])
def test_a_tower_that_nobody_looked_at_or_that_shows_nan_is_refused(kind: Any) -> None:
    tokens, attention = video(0, 2, 6, 5)
    for received in (None, attention * math.nan):
        with pytest.raises(ValueError, match="vision tower"):
            kind().choose(Clip(tokens, received), 3)
