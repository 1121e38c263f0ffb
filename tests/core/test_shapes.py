"""Real shapes with random weights: exactly the published sizes, the real numbers of tokens, and the same code path."""

from __future__ import annotations

import math

import pytest
import torch
from PIL import Image

from effivlm.models import _shapes
from effivlm.models._sources import resolve, shape, shapes
from effivlm.models._torchvision import ensure_torchvision
from effivlm.records import Budget, Cell, Sample, Settings
from effivlm.run.group import method_of, open_model
from effivlm.run.tree import Tree

PUBLISHED = {  # parameters, bytes of cache a token in bfloat16
    "llava_onevision_7b": (8_030_807_584, 57_344),
    "qwen2_vl_7b": (8_291_375_616, 57_344),
    "internvl2_5_8b": (8_075_365_376, 131_072),
    "internvl2_5_38b": (38_388_164_992, 262_144),
}
SMALL = {
    "text_config": {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
}
SIZES = [(640, 480), (512, 384), (1700, 2200), (1024, 768), (100, 100), (320, 900)]


def test_every_shipped_shape_is_a_published_one() -> None:
    assert set(shapes()) == set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_cache_bytes_are_the_published_ones(name: str) -> None:
    ensure_torchvision()
    import transformers

    config = _shapes._config(shape(name)["config"], {})
    with torch.device("meta"):
        model = transformers.AutoModelForImageTextToText.from_config(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == PUBLISHED[name][0] == shape(name)["parameters"]
    text = config.get_text_config()
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    bytes_a_token = 2 * 2 * text.num_hidden_layers * text.num_key_value_heads * head
    assert bytes_a_token == PUBLISHED[name][1] == shape(name)["kv_bytes_per_token"]


def expected(name: str, width: int, height: int) -> int:
    """Visual tokens of one image, from each family's published rule."""
    if name == "qwen2_vl_7b":
        return round(width / 28) * round(height / 28)
    if name == "llava_onevision_7b":
        fits = []
        for rows in range(1, 7):
            for columns in range(1, 7):
                scale = min(384 * columns / width, 384 * rows / height)
                used = min(int(width * scale) * int(height * scale), width * height)
                fits.append((-used, 384 * 384 * rows * columns - used, rows, columns))
        _, _, rows, columns = min(fits)
        high, wide = 27 * rows, 27 * columns
        if width / height > wide / high:
            inner = round(height * (wide / width), 7)
            high -= 2 * int((high - int(inner)) // 2)
        else:
            inner = round(width * (high / height), 7)
            wide -= 2 * int((wide - int(inner)) // 2)
        shrink = math.sqrt(high * wide / (9 * 27**2))
        if shrink > 1.1:
            high, wide = int(high // shrink), int(wide // shrink)
        return 729 + high * wide + high
    grids = [(c, r) for c in range(1, 13) for r in range(1, 13) if c * r <= 12]
    best, off = (1, 1), math.inf
    for columns, rows in sorted(grids, key=lambda one: one[0] * one[1]):
        away = abs(width / height - columns / rows)
        if away < off or (away == off and width * height > 0.5 * 448 * 448 * columns * rows):
            best, off = (columns, rows), away
    tiles = best[0] * best[1]
    return 256 * (tiles + (tiles > 1))


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name != "internvl2_5_38b"])
@pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
def test_an_image_makes_as_many_visual_tokens_as_the_real_model_sees(name: str, size: tuple[int, int]) -> None:
    ensure_torchvision()
    facts = shape(name)
    processor = _shapes.processor(facts)
    inputs = processor(
        text=[processor.apply_chat_template([turn()], add_generation_prompt=True)],
        images=[[Image.new("RGB", size)]],
        return_tensors="pt",
    )
    token = {"qwen2_vl_7b": 151655, "llava_onevision_7b": 151646, "internvl2_5_8b": 92546}[name]
    assert int((inputs["input_ids"] == token).sum()) == expected(name, *size)


def turn() -> dict[str, object]:
    return {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name != "internvl2_5_38b"])
def test_a_smaller_sister_runs_through_the_same_code(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ensure_torchvision()
    small = {key: dict(value) for key, value in SMALL.items()}
    if name == "qwen2_vl_7b":
        rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]}
        small["text_config"]["rope_parameters"] = rope
        small["vision_config"] = {"depth": 1, "embed_dim": 32, "num_heads": 2, "hidden_size": 64}
    else:
        small["vision_config"] = {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
        }
    stock = _shapes.build
    monkeypatch.setattr(
        "effivlm.models._adapter.build", lambda name, device, dtype: stock(name, device, dtype, **small)
    )
    model = open_model(resolve(f"random:{name}"), Settings())
    assert (model.weights, model.source.name, model.eos) == ("random", f"random_{name}", frozenset())
    sample = Sample("one", "What is it?", ("x",), (Image.new("RGB", (200, 150), (90, 20, 200)),))
    method = method_of(Cell(model.source.name, "snapkv", "paper", Budget.parse("0.2").label, "docvqa_micro"))
    with model.seams():
        leaf = Tree(model, sample, [method]).leaf(method)
    assert leaf.visual_tokens == expected(name, 200, 150)
    assert leaf.kept == 2 * method.keep.of(leaf.length)


def test_an_unknown_shape_is_refused_with_all_names() -> None:
    with pytest.raises(ValueError, match=r"unknown shape 'qwen2_vl_7'.*Did you mean 'qwen2_vl_7b'.*random:SHAPE"):
        resolve("random:qwen2_vl_7")


def test_weights_that_are_not_the_published_number_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    ensure_torchvision()
    facts = shape("llava_onevision_7b")
    tiny = {**facts["config"], "text_config": {**facts["config"]["text_config"], **SMALL["text_config"]}}
    tiny["vision_config"] = {
        **tiny["vision_config"],
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    monkeypatch.setattr("effivlm.models._shapes.shape", lambda name: {**facts, "config": tiny})
    with pytest.raises(ValueError, match=r"8,030,807,584 are published"):
        _shapes.build("llava_onevision_7b", "cpu", "float32")
