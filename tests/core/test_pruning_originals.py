"""Methods against what their authors' code kept of the same tensors; `make_pruning_golden.py` ran it."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from make_pruning_golden import image, keys_and_values, tiles, video
from torch import Tensor

from effivlm.compression.base import ImageView, LayerView
from effivlm.compression.frames import Clip
from effivlm.compression.per_image import Seen
from effivlm.methods.cake import Cake
from effivlm.methods.cdpruner import CdPruner
from effivlm.methods.evs import Evs
from effivlm.methods.fast_vid import FastVid
from effivlm.methods.holov import HoloV
from effivlm.methods.mixkv import MixKv
from effivlm.methods.vidcom2 import VidCom2
from effivlm.records import Budget
from effivlm.seams.hooks import Tower

GOLDEN = json.loads((Path(__file__).parent.parent / "data" / "pruning_originals.json").read_text())
Case = dict[str, Any]


def of_video(kind: type[Evs] | type[VidCom2]) -> Callable[[Case], Tensor]:
    return lambda case: kind().choose(Clip(video(case["seed"], *case["shape"])[0]), case["budget"]).kept


def cdpruner(case: Case) -> Tensor:
    tokens, words = tiles(case["seed"], *case["shape"], case["words"])
    blocks, size, _ = tokens.shape
    places = torch.cartesian_prod(torch.arange(blocks), torch.arange(1), torch.arange(size))
    method = CdPruner(keep=Budget(Fraction(case["budget"], blocks * size)))
    (chosen,) = method.select([ImageView(tokens.flatten(0, 1), places, None, words)], "s")
    return chosen.kept


def fast_vid(case: Case) -> Tensor:
    chosen = FastVid().choose(Clip(*video(case["seed"], *case["shape"], offset=3)), case["budget"])
    assert chosen.features is not None
    torch.testing.assert_close(chosen.features.sum(-1), torch.tensor(case["sums"]), rtol=1e-5, atol=2e-5)
    return chosen.kept


def holov(case: Case) -> Tensor:
    tokens, attention = image(case["seed"], *case["shape"])
    return HoloV().choose(Seen(tokens, Tower(attention, attention, tokens[:, None])), case["budget"]).kept


def cake(case: Case) -> Tensor:
    """As the authors' code keeps where it hands out as many; layers' shares are its own up to how rests are rounded."""
    layers, heads, kv_heads, length, width = case["shape"]
    marks = torch.ones(length, dtype=torch.bool)
    views = []
    for layer in range(layers):
        queries, *others = keys_and_values(10 * case["seed"] + layer, heads, kv_heads, length, width)
        views.append(LayerView(queries * (2 + layer) / 8, *others, marks, layer))
    method = Cake(keep=Budget(Fraction(case["budget"], length)), window=case["window"])
    assert method.preferences(views) == pytest.approx(case["preferences"], rel=1e-4)
    ours = method.budgets(views)
    assert sum(ours) == sum(case["counts"]) == layers * case["budget"]
    assert all(abs(one - other) < 2 for one, other in zip(ours, case["counts"], strict=True))
    kept = [method.select(view, count, "s") for view, count in zip(views, case["counts"], strict=True)]
    return torch.cat([rows.flatten() for rows in kept])


def mixkv(case: Case) -> Tensor:
    queries, keys, values = keys_and_values(case["seed"], *case["shape"])
    length = keys.shape[1]
    method = MixKv(keep=Budget(Fraction(case["budget"], length)), window=case["window"])
    view = LayerView(queries, keys, values, torch.ones(length, dtype=torch.bool), 0)
    return method.select(view, case["budget"], "s")


CHOSEN: dict[str, Callable[[Case], Tensor]] = {
    "cake": cake,
    "cdpruner": cdpruner,
    "evs": of_video(Evs),
    "fast_vid": fast_vid,
    "holov": holov,
    "mixkv": mixkv,
    "vidcom2": of_video(VidCom2),
}


def test_every_method_whose_authors_code_was_run_is_compared() -> None:
    assert CHOSEN.keys() == GOLDEN.keys()


@pytest.mark.parametrize(("name", "case"), [(name, case) for name, cases in GOLDEN.items() for case in cases])
def test_a_method_keeps_what_its_authors_code_keeps(name: str, case: Case) -> None:
    assert CHOSEN[name](case).tolist() == case["kept"]
