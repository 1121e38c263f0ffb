"""What a report may show of samples: which visual tokens were kept, and pictures."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from forms import FORMS, sample
from test_oracle import removed
from toy_task import Toy, cells

from effivlm.compression.base import CachePart, ImageView, LayerView, Method
from effivlm.decoding.caches import KeptLayer
from effivlm.methods.dense import Dense
from effivlm.methods.downsample import Downsample
from effivlm.methods.fastv import FastV
from effivlm.methods.random_kv import RandomKv
from effivlm.methods.random_visual import RandomVisual
from effivlm.methods.snapkv import SnapKv
from effivlm.methods.streaming_llm import StreamingLlm
from effivlm.models._adapter import Adapter
from effivlm.records import Budget, Cell, Settings
from effivlm.run import answers, shown
from effivlm.run.group import run_group
from effivlm.run.leaf import Leaf
from effivlm.run.tree import Tree

CELL = Cell("twin", "any", "paper", "0.30", "toy")
SCHEMA = Path(shown.__file__).parents[1] / "report" / "schema" / "outcome.schema.json"
FEW = Budget.parse("0.3")
GRIDS = {
    "llava_onevision": {"one": [[1, 4, 4], [1, 6, 8]], "video": [[4, 2, 2]]},
    "qwen2_vl": {"one": [[1, 3, 4]], "video": [[2, 3, 3]]},
    "internvl2_5": {"one": [[5, 2, 2]], "video": [[1, 2, 2]] * 4},
}


def grown(model: Adapter, form: str, method: Method) -> tuple[Tree, Leaf, dict[str, Any] | None]:
    with model.seams():
        tree = Tree(model, sample(form), [method])
        leaf = tree.leaf(method)
        return tree, leaf, shown.kept_record(CELL, method, tree, leaf)


def layers(record: dict[str, Any] | None) -> list[list[bool]]:
    """One row of bits for each layer."""
    assert record is not None
    size = sum(int(np.prod(grid)) for grid in record["grid"])
    found = []
    for span, text in record["layers"].items():
        first, _, last = span.partition("-")
        packed = np.frombuffer(b64decode(text), dtype=np.uint8)
        assert len(packed) == -(-size // 8)
        bits = np.unpackbits(packed).astype(bool)
        assert not bits[size:].any()
        assert len(found) == int(first)
        found += [bits[:size].tolist()] * (int(last or first) - int(first) + 1)
    return found


def real_positions(tree: Tree) -> list[int]:
    """Places in the dense prompt of the tokens that show a part of a picture."""
    blocks = torch.cat(tree.places())[:, 0]
    return tree.prompt((None, None)).visual.nonzero()[:, 0][blocks >= 0].tolist()


@pytest.mark.parametrize("form", ["one", "two", "video", "both"])
def test_tokens_pruned_at_a_layer_are_there_before_it(model: Adapter, form: str) -> None:
    method = FastV(keep=FEW)
    tree, _, record = grown(model, form, method)
    with model.seams():
        gone = set(removed(model, form, method).tolist())
    found = layers(record)
    assert len(found) == len(model.layers)
    assert all(all(row) for row in found[: method.layer])
    for row in found[method.layer :]:
        assert row == [position not in gone for position in real_positions(tree)]


@pytest.mark.parametrize("form", ["one", "two", "video", "both"])
def test_tokens_pruned_before_the_decoder_are_gone_in_all_layers(model: Adapter, form: str) -> None:
    method = RandomVisual(keep=FEW)
    tree, leaf, record = grown(model, form, method)
    assert record is not None
    assert list(record["layers"]) == ["0-3"]
    kept = iter(method.select([ImageView(place.float(), place) for place in tree.places()], sample(form).id))
    ideal: list[bool] = []
    for place in tree.places():
        row = torch.zeros(len(place), dtype=torch.bool)
        row[next(kept).kept] = True
        ideal += row[place[:, 0] >= 0].tolist()
    assert layers(record)[0] == ideal
    assert sum(ideal) == leaf.kept


@pytest.mark.parametrize("method", [SnapKv(keep=FEW, window=2), RandomKv(keep=FEW), StreamingLlm(keep=FEW)])
def test_a_token_counts_as_kept_where_any_head_keeps_it(model: Adapter, method: CachePart) -> None:
    tree, leaf, record = grown(model, "two", method)
    dense = tree.prefilled((None, None, None)).cache.keys
    for number, row in enumerate(layers(record)):
        kept = leaf.cache[number].keys
        ideal = [
            any((kept[head] == dense[number][0, head, position]).all(-1).any() for head in range(len(kept)))
            for position in real_positions(tree)
        ]
        assert row == ideal
        assert any(row) or isinstance(method, StreamingLlm)
        assert not all(row)


def test_merged_tokens_count_by_the_token_they_stand_at(model: Adapter) -> None:
    _, leaf, record = grown(model, "one", Downsample(keep=FEW, mode="feature"))
    assert sum(layers(record)[0]) == leaf.kept


@pytest.mark.parametrize("form", ["one", "video"])
def test_grids_are_those_of_the_family_and_name_their_pictures(model: Adapter, form: str) -> None:
    _, _, record = grown(model, form, RandomVisual(keep=FEW))
    assert record is not None
    assert record["grid"] == GRIDS[model.source.family][form]
    frame_by_frame = model.source.family == "internvl2_5"
    frames = [[number, 1] for number in range(4)] if frame_by_frame else [[0, 4]]
    assert record["shows"] == (frames if form == "video" else [[0, 1]] * len(record["grid"]))
    both = grown(model, "both", RandomVisual(keep=FEW))[2]
    assert both is not None
    assert both["shows"][0] == [0, 1]
    assert both["shows"][-1] == ([4, 1] if frame_by_frame else [1, 4])


@pytest.mark.parametrize(
    ("form", "method"),
    [
        ("one", Dense()),
        ("one", FastV()),
        ("text", RandomKv(keep=FEW)),
        ("text", FastV(keep=FEW)),
    ],
)
def test_nothing_is_noted_where_nothing_visual_was_dropped(model: Adapter, form: str, method: Method) -> None:
    assert grown(model, form, method)[2] is None


def test_other_images_have_no_tokens_in_common_with_the_dense_ones(model: Adapter) -> None:
    if model.source.family == "qwen2_vl":  # the other two cannot show a single small image in fewer tokens
        assert grown(model, "one", Downsample(keep=Budget.parse("0.8"), mode="image"))[2] is None
    tree = Tree(model, sample("one"), [])
    assert tree.still_seen(Downsample(keep=FEW, mode="image"), None) is None  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Ragged(CachePart):
    """Head 0 keeps the first 12 entries, head 1 the first 4, padded; without noting which where `silent`."""

    silent: bool = False

    def select(self, view: LayerView, budget: int, sample_id: str) -> torch.Tensor:
        return torch.arange(12).expand(len(view.keys), -1)

    def compress(self, views: Sequence[LayerView], sample_id: str) -> list[KeptLayer]:
        found = []
        for view in views:
            rows = self.select(view, 12, sample_id).clone()
            rows[1:, 4:] = view.visual.nonzero()[-2]  # padding; the last one may be a newline marker
            rows[0] += 2
            lengths = (12, *(4 for _ in rows[1:]))
            layer = KeptLayer(view.keys[:, :12], view.values[:, :12], lengths, None if self.silent else rows)
            found.append(layer)
        return found


def test_padding_of_heads_is_not_counted(model: Adapter) -> None:
    tree, _, record = grown(model, "one", Ragged(keep=FEW))
    assert layers(record)[0] == [position < 14 for position in real_positions(tree)]
    assert any(layers(record)[0])
    assert not all(layers(record)[0][-2:])


def test_a_method_that_does_not_say_what_it_kept_has_no_line(model: Adapter) -> None:
    method = Ragged(keep=FEW, silent=True)
    tree, leaf, record = grown(model, "one", method)
    assert record is None
    assert tree.still_seen(method, leaf) is None, "not knowing is not the same as having kept everything"


def test_only_the_first_samples_of_a_task_are_noted(
    model: Adapter, toy_task: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "SAMPLES", 3)
    lines: list[dict[str, Any]] = []
    run_group(
        cells(methods=["fastv", "snapkv", "dense"], keeps=("0.30",)), model, Settings(limit=9), None, lines.append
    )
    ids = [one.id for one in toy_task.samples(9, 0)]
    kept = [line for line in lines if line["kind"] == "kept"]
    assert {line["sample"] for line in kept} == {*ids[1:3]}, "the first is text"
    assert {line["cell"]["method"] for line in kept} == {"fastv", "snapkv"}
    assert [line["id"] for line in lines if line["kind"] == "sample"] == ids
    checker = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    assert [error.message for line in lines for error in checker.iter_errors(json.loads(json.dumps(line)))] == []


def test_a_sample_is_shown_with_all_its_pictures_and_frames() -> None:
    found = {form: shown.sample_record("toy", sample(form))["pictures"] for form in FORMS}
    assert {form: len(pictures) for form, pictures in found.items()} == {
        "text": 0,
        "one": 1,
        "two": 2,
        "video": 4,
        "both": 5,
    }
    assert all(one.startswith("data:image/jpeg;base64,") for pictures in found.values() for one in pictures)


def test_pictures_are_small_and_smaller_where_there_are_many() -> None:
    from io import BytesIO

    from PIL import Image

    wide = Image.new("RGB", (900, 300))
    sizes = []
    for images in ((wide,), (wide, wide)):
        record = shown.sample_record("toy", replace(sample("text"), images=images))
        data = b64decode(record["pictures"][-1].partition(",")[2])
        sizes.append(Image.open(BytesIO(data)).size)
    assert sizes == [(256, 85), (128, 43)]


def test_a_digest_names_the_pixels_and_nothing_else() -> None:
    from PIL import Image

    drawn = Image.fromarray(np.arange(300, dtype=np.uint8).repeat(3).reshape(10, 30, 3))
    other = drawn.transpose(Image.Transpose.FLIP_LEFT_RIGHT)

    def digest(*images: Any, **more: Any) -> str:
        return shown.pictures_digest(replace(sample("text"), images=images, **more))

    assert digest(drawn) == digest(drawn.convert("RGBA")) == digest(drawn, prompt="another question")
    assert len({digest(*those) for those in ((drawn,), (other,), (drawn, other), (other, drawn), (drawn, drawn))}) == 5
    assert digest(drawn) != digest(drawn.resize((15, 20)).resize((30, 10)))
    assert digest() == ""


@pytest.mark.usefixtures("toy_task")
def test_every_answer_says_which_pictures_it_is_about(model: Adapter) -> None:
    found = run_group(cells(methods=["snapkv", "fastv"], keeps=("0.30",)), model, Settings(limit=3))
    wanted = [shown.pictures_digest(sample(form, number)) for number, form in enumerate(FORMS)][:3]
    assert any(wanted)
    able = [one for one in found if one.status == "ok"]
    assert len(able) > 2
    assert [[answer.pictures for answer in one.answers] for one in able] == [wanted] * len(able)


def test_a_picture_that_cannot_be_read_is_no_picture_that_others_share() -> None:
    class Torn:
        size = (4, 4)

        def getexif(self) -> None:
            raise OSError("image file is truncated")

    assert shown.pictures_digest(replace(sample("text"), images=(Torn(),))) == ""  # type: ignore[arg-type]
