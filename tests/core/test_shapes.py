"""Real shapes with random weights: exactly the published sizes, the real numbers of tokens, and the same code path."""

from __future__ import annotations

import math

import pytest
import torch
import twins
from PIL import Image

from effivlm.decoding.eager import greedy
from effivlm.models import _shapes
from effivlm.models._sources import checkpoints, resolve, shape, shapes
from effivlm.models._torchvision import ensure_torchvision
from effivlm.records import Budget, Cell, Sample, Settings
from effivlm.run.group import method_of, open_model
from effivlm.run.tree import Tree

PUBLISHED = {  # parameters, bytes of cache a token in bfloat16
    "llava_onevision_7b": (8_030_807_584, 57_344),
    "qwen2_vl_7b": (8_291_375_616, 57_344),
    "internvl2_5_8b": (8_075_365_376, 131_072),
    "internvl2_5_38b": (38_388_164_992, 262_144),
    "internvl3_8b": (7_944_373_760, 57_344),
    "internvl3_38b": (38_388_164_992, 262_144),
    "internvl3_5_8b": (8_528_318_464, 147_456),
    "qwen2_5_vl_7b": (8_292_166_656, 57_344),
    "qwen3_vl_8b": (8_767_123_696, 147_456),
    "llava_1_5_7b": (7_063_427_072, 524_288),
    "llava_next_7b": (7_063_431_168, 524_288),
    "smolvlm2_2_2b": (2_246_784_880, 196_608),
}
NEWER = ("qwen2_5_vl_7b", "qwen3_vl_8b", "llava_1_5_7b", "llava_next_7b", "smolvlm2_2_2b")
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


def test_every_shipped_shape_is_a_published_one_and_every_named_checkpoint_has_one() -> None:
    assert set(shapes()) == set(PUBLISHED)
    assert {name for name in checkpoints() if not name.startswith("micro_")} == set(PUBLISHED)


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
    if side := {"qwen2_vl_7b": 28, "qwen2_5_vl_7b": 28, "qwen3_vl_8b": 32}.get(name):
        high, wide = round(height / side), round(width / side)
        if high * wide >= (least := {32: 64, 28: 4}[side]):
            return high * wide
        larger = math.sqrt(least * side**2 / (width * height))
        return math.ceil(height * larger / side) * math.ceil(width * larger / side)
    if name == "llava_1_5_7b":
        return 576
    if name == "smolvlm2_2_2b":
        shorter = int(1536 * min(width, height) / max(width, height))
        return 81 * (4 * math.ceil(shorter / 384) + 1)
    if name in ("llava_onevision_7b", "llava_next_7b"):
        fits = []
        tile, each = (384, 27) if name == "llava_onevision_7b" else (336, 24)
        few = [(1, 2), (2, 1), (2, 2), (3, 1), (1, 3)]  # as the checkpoint lists them
        every = [(rows, columns) for rows in range(1, 7) for columns in range(1, 7)]
        for rows, columns in every if each == 27 else few:
            scale = min(tile * columns / width, tile * rows / height)
            used = min(int(width * scale) * int(height * scale), width * height)
            fits.append((-used, tile * tile * rows * columns - used, rows, columns))
        _, _, rows, columns = min(fits, key=lambda fit: fit[:2])
        high, wide = each * rows, each * columns
        if width / height > wide / high:
            inner = round(height * (wide / width), 7)
            high -= 2 * int((high - int(inner)) // 2)
        else:
            inner = round(width * (high / height), 7)
            wide -= 2 * int((wide - int(inner)) // 2)
        shrink = math.sqrt(high * wide / (9 * 27**2))
        if shrink > 1.1:
            high, wide = int(high // shrink), int(wide // shrink)
        return each**2 + high * wide + high
    grids = [(c, r) for c in range(1, 13) for r in range(1, 13) if c * r <= 12]
    best, off = (1, 1), math.inf
    for columns, rows in sorted(grids, key=lambda one: one[0] * one[1]):
        away = abs(width / height - columns / rows)
        if away < off or (away == off and width * height > 0.5 * 448 * 448 * columns * rows):
            best, off = (columns, rows), away
    tiles = best[0] * best[1]
    return 256 * (tiles + (tiles > 1))


@pytest.mark.parametrize("name", ["llava_onevision_7b", "qwen2_vl_7b", "internvl2_5_8b", "internvl3_5_8b", *NEWER])
@pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
def test_an_image_makes_as_many_visual_tokens_as_the_real_model_sees(name: str, size: tuple[int, int]) -> None:
    ensure_torchvision()
    facts = shape(name)
    installed(name)
    processor = _shapes.processor(facts)
    inputs = processor(
        text=[processor.apply_chat_template([turn()], add_generation_prompt=True)],
        images=[[Image.new("RGB", size)]],
        return_tensors="pt",
    )
    token = facts["config"].get("image_token_id", facts["config"].get("image_token_index"))
    assert int((inputs["input_ids"] == token).sum()) == expected(name, *size)


def installed(name: str) -> None:
    """Skip where a package is missing that the family's processor needs."""
    if package := twins.NEEDS.get(str(shape(name)["family"])):
        pytest.importorskip(package)


def turn() -> dict[str, object]:
    return {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}


def smaller(name: str) -> dict[str, dict[str, object]]:
    """Two narrow layers; everything else (classes, positions, norms, biases, token ids) stays as it is."""
    small: dict[str, dict[str, object]] = {key: dict(value) for key, value in SMALL.items()}
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]}
    if name == "qwen2_vl_7b":
        small["text_config"]["rope_parameters"] = rope
        small["vision_config"] = {"depth": 2, "embed_dim": 32, "num_heads": 2, "hidden_size": 64}
        return small
    if name in ("qwen2_5_vl_7b", "qwen3_vl_8b"):
        fifth = name == "qwen2_5_vl_7b"
        more = {"fullatt_block_indexes": [1]} if fifth else {"deepstack_visual_indexes": [0, 1]}
        tower = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 64}
        small["text_config"] |= {"rope_parameters": rope if fifth else {**rope, "mrope_interleaved": True}}
        small["text_config"] |= {} if fifth else {"head_dim": 16}
        return {**small, "vision_config": {**tower, **more}}
    if "head_dim" in shape(name)["config"]["text_config"]:
        small["text_config"]["head_dim"] = 16
    tower = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    return {**small, "vision_config": tower}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_narrow_sister_of_two_layers_answers_as_stock_generate(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ensure_torchvision()
    installed(name)
    small, stock = smaller(name), _shapes.build
    monkeypatch.setattr(
        "effivlm.models._adapter.build", lambda name, device, dtype: stock(name, device, dtype, **small)
    )
    model = open_model(resolve(f"random:{name}"), Settings())
    assert (model.weights, model.source.name, model.eos) == ("random", f"random_{name}", frozenset())
    sample = Sample("one", "What is it?", ("x",), (Image.new("RGB", (100, 100), (90, 20, 200)),))
    method = method_of(Cell(model.source.name, "snapkv", "paper", Budget.parse("0.2").label, "docvqa_micro"))
    dense = method_of(Cell(model.source.name, "dense", "paper", "1.00", "docvqa_micro"))
    inputs = model.prepare(sample)
    with torch.inference_mode():
        full = model.model.generate(**inputs, max_new_tokens=4, do_sample=False, eos_token_id=None, pad_token_id=0)
    with model.seams():
        tree = Tree(model, sample, [method, dense])
        leaf = tree.leaf(method)
        answer = greedy(model.step, [tree.leaf(dense).start], 4, (), model.device)[0]
    assert answer == full[0, inputs["input_ids"].shape[1] :].tolist()
    assert leaf.visual_tokens == expected(name, 100, 100)
    assert leaf.kept == 2 * method.keep.of(leaf.length)


@pytest.mark.parametrize(("name", "limits"), [("internvl2_5_8b", (5, 5)), ("qwen2_vl_7b", (1_000_000, 1_500_000))])
def test_twenty_pages_are_limited_until_their_prompt_fits(
    name: str, limits: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure_torchvision()
    small, stock = smaller(name), _shapes.build
    monkeypatch.setattr(
        "effivlm.models._adapter.build", lambda name, device, dtype: stock(name, device, dtype, **small)
    )
    model = open_model(resolve(f"random:{name}"), Settings())
    page = Image.new("RGB", (1700, 2200))
    model.begin_task(0, 0, 32)
    many, sizes = Sample("many", "What?", ("x",), (page,) * 20), [(2200, 1700)] * 20
    assert model.tokens_of(sizes, 0) > 35_000, "they overflow 32,768 positions without a limit"
    limit = model.fitting(many, many.images)
    assert limits[0] <= limit <= limits[1]
    assert 20_000 < model.tokens_of(sizes, limit) < 32_768 - 32
    assert f"each was limited to {limit:,} {model.limited_by}" in model.remarks()[0]


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
