"""How pictures and turns reach a model: system turns, limits on pictures, prompts of many pages, and the processor's backend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from forms import sample
from PIL import Image
from toy_task import Toy

from effivlm.models._adapter import Adapter
from effivlm.models._presenting import BACKENDS, Presenting, with_backend
from effivlm.records import Cell, Sample, Settings
from effivlm.run import assembly
from effivlm.run.group import cell_fingerprint, run_group


@pytest.fixture(autouse=True)
def _as_before(model: Adapter) -> Any:
    yield
    model.present(Presenting())


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def text_of(model: Adapter, one: Sample) -> str:
    return str(model.processor.tokenizer.decode(model.prepare(one)["input_ids"][0]))


def visual(model: Adapter, one: Sample) -> int:
    return len(model.visual_positions(model.prepare(one)))


@pytest.mark.parametrize("form", ["one", "text"])
def test_a_system_turn_stands_first_and_none_leaves_the_template_alone(model: Adapter, form: str) -> None:
    plain = text_of(model, sample(form))
    model.present(Presenting(system="Answer as a pirate."))
    turned = text_of(model, sample(form))
    at = turned.index("Answer as a pirate.")
    assert turned[:at].split() in (["<|im_start|>system"], ["<|im_start|>", "system"])
    assert turned.endswith(plain.split("user", 1)[1])
    model.present(Presenting(system=""))
    assert "system" in text_of(model, sample(form))
    model.present(Presenting())
    assert text_of(model, sample(form)) == plain


def test_a_template_without_a_system_turn_is_told_before_anything_runs(
    model: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = model.processor.chat_template
    monkeypatch.setattr(
        model.processor, "chat_template", "{% for m in messages if m['role'] != 'system' %}x{% endfor %}" + template[:0]
    )
    with pytest.raises(ValueError, match="its chat template has no system turn, so --vlm-system is without effect"):
        model.present(Presenting(system="Be brief."))
    monkeypatch.undo()


def test_a_limit_makes_fewer_visual_tokens_and_the_model_takes_them(model: Adapter) -> None:
    one = Sample("one", "What?", ("x",), (noise(96, 90),))
    whole = visual(model, one)
    model.present(Presenting(pixels=32 * 32, tiles=1))
    assert visual(model, one) < whole
    with model.seams():
        inputs = model.prepare(one)
        encoded = model.encode(inputs)
        assert model.prompt(inputs, encoded).length == inputs["input_ids"].shape[1]
        expected = model.model(**inputs).logits
    assert torch.isfinite(expected).all()
    model.present(Presenting())
    assert visual(model, one) == whole


def test_the_runs_limits_go_before_the_tasks(model: Adapter) -> None:
    model.begin_task(900, 3, 8)
    assert model.limit == {"pixels": 900, "tiles": 3}[model.limited_by]
    model.present(Presenting(pixels=700, tiles=2))
    model.begin_task(900, 3, 8)
    assert model.limit == {"pixels": 700, "tiles": 2}[model.limited_by]


def test_predicted_tokens_are_those_that_the_processor_makes(model: Adapter) -> None:
    if model.source.family == "llava_onevision":
        pytest.skip("its pictures need no limit: several of one sample get one crop each")
    for size in ((96, 40), (33, 90), (64, 64)):
        for limit in (0, *list(model.tighter())[1:]):
            model.limit = 0
            one = Sample("one", "What?", ("x",), (noise(*size),) * 2)
            kwargs = model.limiting(limit)
            images = [list(one.images)]
            made = model.turns.inputs(one, {"images": images, **kwargs})
            predicted = model.tokens_of([(size[1], size[0])] * 2, limit)
            assert len(model.visual_positions({"input_ids": made["input_ids"]})) == predicted


def test_many_pictures_are_limited_until_the_prompt_and_the_answer_fit(
    model: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    if model.source.family == "llava_onevision":
        pytest.skip("its pictures need no limit: several of one sample get one crop each")
    few = Sample("few", "What?", ("x",), (noise(96, 90),))
    many = Sample("many", "What?", ("x",), tuple(noise(96, 90, seed) for seed in range(8)))
    model.begin_task(0, 0, 16)
    needed = model.prepare(many)["input_ids"].shape[1]
    assert model.held == {}
    monkeypatch.setattr(model.text.config, "max_position_embeddings", needed - 8)
    length = model.prepare(many)["input_ids"].shape[1]
    assert length + 16 <= needed - 8
    assert visual(model, many) > 0
    model.prepare(few)
    assert set(model.held) == {"many"}
    (said,) = model.remarks()
    assert f"each was limited to {model.held['many']:,} {model.limited_by}" in said
    assert f"{needed - 8:,} positions" in said
    model.begin_task(0, 0, 16)
    assert model.remarks() == ()


def test_a_limit_that_no_prompt_fits_is_left_to_the_run(model: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    before = visual(model, sample("two"))
    monkeypatch.setattr(model.text.config, "max_position_embeddings", 3)
    assert visual(model, sample("two")) == before
    assert model.held == {}


def test_outcomes_say_that_pictures_were_limited(
    model: Adapter, toy_task: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assembly, "held_remarks", lambda held, word, positions: (f"{len(held)} limited by {word}",))
    outcomes = run_group([Cell(model.source.name, "dense", "paper", "1.00", "docvqa_micro")], model, Settings(limit=2))
    assert f"0 limited by {model.limited_by}" in outcomes[0].remarks


def test_what_is_asked_for_is_part_of_the_fingerprint_and_what_is_not_is_not(model: Adapter) -> None:
    cell = Cell(model.source.name, "dense", "paper", "1.00", "docvqa_micro")
    asked = [{}, {"system": ""}, {"system": "a"}, {"pixels": 9}, {"tiles": 9}, {"processor": "torchvision"}]
    names = [cell_fingerprint(cell, model.source, Settings(**one)) for one in asked]  # type: ignore[arg-type]
    assert len(set(names)) == len(names)
    assert Presenting.of(Settings()).differences() == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_backend_has_the_same_settings_and_tokens_and_torchvision_is_the_stock_one(
    model: Adapter, backend: str
) -> None:
    import transformers

    one = Sample("one", "What?", ("x",), (noise(96, 90),))
    tokens = visual(model, one)
    model.present(Presenting(backend=backend))
    kind = type(model.processor.image_processor).__name__
    assert kind.endswith("Pil") == (backend == "pil")
    assert with_backend(model.processor.image_processor, backend) is model.processor.image_processor
    found = model.prepare(one)
    assert len(model.visual_positions(found)) == tokens
    if backend == "torchvision":
        stock = transformers.AutoProcessor.from_pretrained(model.source.source)
        assert type(stock.image_processor).__name__ == kind
        expected = stock.image_processor([one.images[0]], return_tensors="pt")["pixel_values"]
        assert torch.equal(found["pixel_values"].flatten(), expected.flatten().to(found["pixel_values"]))


def test_a_frame_of_a_video_is_capped_as_the_reference_does(model: Adapter) -> None:
    if model.source.family != "qwen2_vl":
        pytest.skip("frames of the other families have one size")
    frames = tuple(noise(1200, 1000, seed) for seed in range(2))
    clip = Sample("clip", "What?", ("x",), video=frames)
    model.processor.video_processor.size = {"shortest_edge": 256, "longest_edge": 12_845_056}
    try:
        tokens = visual(model, clip)
        assert 700 < tokens <= 768  # two frames are one block of tokens; uncapped it had 4,650
        model.present(Presenting(pixels=100 * 256))
        assert 80 < visual(model, clip) <= 100
        both = Sample("both", "What?", ("x",), (noise(64, 64),), frames)
        assert visual(model, both) <= 100 + 16
    finally:
        model.processor.video_processor.size = {"shortest_edge": 256, "longest_edge": 96 * 96}
