"""What training does in batches is what the stock classes do one by one, and stages go on where they stopped."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from effivlm_micro import pages
from effivlm_micro.architectures import FAMILIES, PINPOINTS
from effivlm_micro.data import IGNORED, Batches, cells, conversation_about, heldout_batches, opened, plan, turns
from effivlm_micro.heldout import MAKERS, items, named
from effivlm_micro.muon import Muon
from effivlm_micro.packing import PACKERS, Shape, skeleton, text_states
from effivlm_micro.picture import CLASSES, COLOURS, SHAPES, Asked, mark_class, object_mark
from effivlm_micro.recipe import answer_weights, mixture_of
from effivlm_micro.stage import load_stage, save_stage
from effivlm_micro.vocabulary import whole_words
from PIL import Image
from torch import nn

SHAPES_SEEN = [
    Shape("image", 1, 192, 192),
    Shape("image", 1, 192, 384),
    Shape("image", 1, 384, 384),
    Shape("pages", 3, 192, 192),
    Shape("clip", 4, 192, 192),
]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> tuple[str, Any, Any]:
    """A family's name with a fresh model and its processor."""
    made = FAMILIES[request.param]
    return request.param, made.model(0).eval(), made.processor()


def stock_inputs(processor: Any, frames: np.ndarray, shape: Shape, question: str) -> Any:
    """The processor's own output for one sample."""
    images = [Image.fromarray(frame) for frame in frames]
    content: list[dict[str, str]] = [{"type": "video"}] if shape.kind == "clip" else [{"type": "image"} for _ in images]
    turn = [{"role": "user", "content": [*content, {"type": "text", "text": question}]}]
    text = processor.apply_chat_template(turn, add_generation_prompt=True)
    visual: dict[str, Any] = {"images": [images]}
    if shape.kind == "clip":
        visual = {"videos": [images], "do_sample_frames": False}
        if "Qwen" in type(processor).__name__:
            visual["cap_pixels_per_frame"] = True
    return processor(text=[text], return_tensors="pt", **visual)


@pytest.mark.parametrize("shape", SHAPES_SEEN, ids=str)
def test_the_batched_forward_gives_the_stock_models_logits(family: tuple[str, Any, Any], shape: Shape) -> None:
    name, net, processor = family
    coarse = np.random.default_rng(0).integers(0, 256, (2, shape.frames, shape.height // 8, shape.width // 8, 3))
    frames = np.repeat(np.repeat(coarse.astype(np.uint8), 8, 2), 8, 3)
    base = skeleton(net, processor, shape)
    with torch.no_grad():
        visual, raster = PACKERS[name](net, torch.from_numpy(frames), shape)
        for row in range(2):
            inputs = stock_inputs(processor, frames[row], shape, "What is the total?")
            start = len(base.ids)
            assert torch.equal(inputs.input_ids[0, :start], base.ids)
            stock = net(**inputs).logits[:, start:]
            ours = net.lm_head(text_states(net, base, visual[row : row + 1], inputs.input_ids[:, start:]))
            # the small picture is resized on tensors here and by PIL there, so pixels may differ by one grey level
            torch.testing.assert_close(ours, stock, atol=0.02, rtol=0)
    rows = (shape.height // 16, shape.width // 16)
    assert raster is None if shape.kind == "clip" else raster.shape[1:4] == (shape.frames, *rows)


def test_a_page_has_at_least_five_hundred_visual_tokens(family: tuple[str, Any, Any]) -> None:
    _, net, processor = family
    assert len(skeleton(net, processor, Shape("image", 1, 384, 384)).places) >= 500


def test_parameters_and_pinpoints_are_as_the_readme_says() -> None:
    counts = {name: sum(p.numel() for p in made.model(0).parameters()) for name, made in FAMILIES.items()}
    assert counts == {"micro_llava_onevision": 7628032, "micro_qwen2_vl": 7236224, "micro_internvl2_5": 7159744}
    assert [384, 384] in PINPOINTS


def test_marks_are_classes_of_characters_and_of_coloured_shapes() -> None:
    classes = {mark_class(chr(code)) for code in range(32, 127)}
    objects = {mark_class(object_mark(shape, colour, 0, 0)[0]) for shape in SHAPES for colour in COLOURS}
    assert classes == set(range(1, 96))
    assert objects == set(range(96, CLASSES))


def test_cells_hold_the_marks_whose_centres_they_contain_left_to_right() -> None:
    made = pages.page(4, "train")
    found = cells(made.characters, 384, 384)
    char, x, y = made.characters[0]
    assert mark_class(char) in found[int(y) // 16, int(x) // 16]
    assert (found > 0).sum() <= len(made.characters)
    assert cells([("b", 9.0, 3.0), ("a", 2.0, 3.0)], 16, 16).tolist() == [[[mark_class("a"), mark_class("b"), 0]]]


def test_a_conversation_asks_one_member_of_each_group_so_that_no_answer_gives_another_away() -> None:
    asked = [Asked("count", f"{number}?", answer) for number in range(6) for answer in ("Yes", "No")]
    found = turns("mme_image_micro", asked, Random(0))
    assert sorted(question[0] for question, _ in found) == list("012345")


def test_a_question_without_its_options_is_answered_by_the_right_options_text() -> None:
    for item in items("mmbench_micro", 12, 0):
        question, answer = opened(Asked(item.kind, item.question, item.answer))
        assert f"\n{item.answer}. {answer}\n" in item.question
        assert "options" not in question


def test_facts_come_first_in_some_conversations_and_never_where_they_are_the_answer() -> None:
    rng, found = Random(0), {}
    for task in ("gqa_micro", "mme_image_micro", "mmbench_micro", "imagedc_micro", "chartqa_micro"):
        made = [named(MAKERS[task])(Random(number), "train") for number in range(60)]
        asked = [(picture, conversation_about(task, picture, rng)) for picture in made]
        first = [
            one[0] == (one_picture.facts.question, one_picture.facts.answer) if one_picture.facts else False
            for one_picture, one in asked
        ]
        found[task] = sum(first) / len(first)
    assert all(0.12 < found[task] < 0.4 for task in ("gqa_micro", "mme_image_micro", "mmbench_micro", "chartqa_micro"))
    # a scene to be listed has its list as the only question, which is not asked twice
    picture = next(p for p in (named(MAKERS["imagedc_micro"])(Random(n), "train") for n in range(50)) if p.facts)
    assert len(conversation_about("imagedc_micro", picture, Random(1))) == len(picture.asked) == 1


def test_pictures_come_back_as_often_as_asked() -> None:
    def distinct(reuse: float, count: int) -> float:
        stream, seen, shown = iter(Batches(0, 0.2, {"gqa_micro": 1.0}, reuse)), set(), 0
        while shown < count:
            frames = next(stream).frames
            shown += len(frames)
            seen |= {frame.numpy().tobytes() for frame in frames}
        return len(seen) / shown

    assert distinct(1.0, 64) == 1.0
    assert distinct(3.0, 700) < 0.66, "the shelf fills first, then two of three come from it"
    with pytest.raises(ValueError, match=r"reuse 0\.5 must be 1 or more"):
        Batches(0, 1.0, reuse=0.5)


def test_an_answer_counts_as_the_root_of_its_length() -> None:
    labels = torch.full((2, 12), IGNORED, dtype=torch.int16)
    labels[0, 1:5], labels[0, 7] = 3, 4
    labels[1, 0:9] = 5
    weights = answer_weights(labels)
    assert weights[0].tolist() == [0, 0.5, 0.5, 0.5, 0.5, 0, 0, 1, 0, 0, 0, 0]
    torch.testing.assert_close(weights[1], torch.tensor([1 / 3] * 9 + [0.0] * 3))
    assert answer_weights(torch.full((1, 3), IGNORED)).tolist() == [[0, 0, 0]]


def test_batches_have_one_shape_each_and_come_from_every_task() -> None:
    stream, shapes = iter(Batches(0, 0.03)), set()
    for _ in range(60):
        batch = next(stream)
        shapes.add(batch.shape)
        assert len(batch.frames) == len(batch.ids) == plan(batch.shape, 0.03).batch
        assert batch.frames.shape[1:4] == (batch.shape.frames, batch.shape.height, batch.shape.width)
        assert (batch.labels >= 0).any(dim=1).all()
    assert {shape.kind for shape in shapes} == {"image", "pages", "clip"}
    assert {(shape.height, shape.width) for shape in shapes} == {(192, 192), (192, 384), (384, 384)}


@pytest.mark.parametrize("task", MAKERS)
def test_held_out_batches_are_the_held_out_samples(task: str) -> None:
    asked = {item.id: item for item in items(task, 8, 3)}
    found = [item.id for _, members in heldout_batches(task, 8, 3) for item in members]
    assert sorted(found) == sorted(asked)


def test_a_mixture_names_tasks_and_nothing_else() -> None:
    assert mixture_of("docvqa_micro=0")["mpdoc_micro"] > 0
    assert "docvqa_micro" not in mixture_of("docvqa_micro=0")
    with pytest.raises(ValueError, match="'docvqa' is not one of"):
        mixture_of("docvqa=1")


def test_muon_in_batches_is_muon_one_by_one() -> None:
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.randn(shape)) for shape in ((8, 16), (16, 8), (8, 16), (12, 12))]
    stock = [nn.Parameter(p.detach().clone()) for p in ours]
    before = [p.detach().clone() for p in ours]
    mine = Muon(ours, lr=2e-2)
    theirs = torch.optim.Muon(stock, lr=2e-2, weight_decay=0.03, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        for one, other in zip(ours[:3], stock[:3], strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        mine.step()
        theirs.step()
    for one, other in zip(ours, stock, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)
    assert torch.equal(ours[3], before[3])
    assert not torch.equal(ours[0], before[0])


def test_a_stage_goes_on_from_its_own_weights_and_takes_the_decoder_of_another_family(tmp_path: Path) -> None:
    first, head = FAMILIES["micro_llava_onevision"].model(1), nn.Linear(4, 4)
    save_stage(first, head, "micro_llava_onevision", tmp_path)
    again, other = FAMILIES["micro_llava_onevision"].model(2), FAMILIES["micro_qwen2_vl"].model(2)
    assert load_stage(again, nn.Linear(4, 4), "micro_llava_onevision", tmp_path).startswith("173 of 173")
    load_stage(other, None, "micro_qwen2_vl", tmp_path)
    for net in (again, other):
        ours, theirs = net.model.language_model, first.model.language_model
        torch.testing.assert_close(
            ours.layers[3].mlp.up_proj.weight, theirs.layers[3].mlp.up_proj.weight, atol=1e-3, rtol=0
        )
        words = len(whole_words())
        torch.testing.assert_close(
            ours.embed_tokens.weight[:words], theirs.embed_tokens.weight[:words], atol=1e-3, rtol=0
        )
    fresh = FAMILIES["micro_qwen2_vl"].model(2)
    assert torch.equal(other.model.visual.merger.mlp[0].weight, fresh.model.visual.merger.mlp[0].weight)
