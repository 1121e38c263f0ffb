"""The twins are what they claim: real processors and models that load offline, take every form and notice what they see."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import twins
from PIL import Image

FORMS = ("text", "one", "two", "video", "both")
VISUAL = {  # placeholders per form; llava_onevision: 16 + 6 rows of 9, then 16 + 8 rows of 5; 4 frames of 4 and a marker
    "llava_onevision": {"text": 0, "one": 70, "two": 70 + 56, "video": 17, "both": 70 + 17},
    "qwen2_vl": {"text": 0, "one": 3 * 4, "two": 3 * 4 + 4 * 2, "video": 2 * 9, "both": 3 * 4 + 2 * 9},
    "internvl2_5": {"text": 0, "one": 5 * 4, "two": (5 + 3) * 4, "video": 4 * 4, "both": (5 + 4) * 4},
}
KEYS = {  # what comes beside input_ids and attention_mask for an image and a video in one sample
    "llava_onevision": {"pixel_values", "image_sizes", "batch_num_images", "pixel_values_videos"},
    "qwen2_vl": {
        "mm_token_type_ids",
        "pixel_values",
        "image_grid_thw",
        "pixel_values_videos",
        "video_grid_thw",
    },
    "internvl2_5": {"pixel_values"},
}


class Twin(NamedTuple):
    family: str
    folder: Path
    model: Any
    processor: Any


def load(family: str, folder: Path) -> Twin:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True).eval()
    return Twin(family, folder, model, AutoProcessor.from_pretrained(folder, local_files_only=True))


@pytest.fixture(scope="module", params=twins.FAMILIES)
def twin(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Twin:
    torch.set_num_threads(1)
    return load(request.param, twins.build(request.param, tmp_path_factory.mktemp(request.param)))


def picture(width: int, height: int, seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


def chat(processor: Any, images: int, videos: int, text: str) -> str:
    content = [{"type": "image"}] * images + [{"type": "video"}] * videos + [{"type": "text", "text": text}]
    return str(processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True))


def inputs(processor: Any, form: str, seed: int = 0, text: str = "What is it?") -> Any:
    """Processor output for no image, one, two, four frames, or an image and four frames."""
    images = [picture(60, 50, seed), picture(40, 70, seed + 1)][: {"one": 1, "two": 2, "both": 1}.get(form, 0)]
    videos = [[picture(48, 48, seed + frame) for frame in range(4)]] if form in ("video", "both") else []
    given: dict[str, Any] = {"images": images} if images else {}
    if videos:
        given |= {"videos": videos, "do_sample_frames": False}
    return processor(text=[chat(processor, len(images), len(videos), text)], return_tensors="pt", **given)


def logits(model: Any, batch: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(**batch).logits  # type: ignore[no-any-return]


def visual(twin: Twin, batch: Any) -> int:
    config = twin.model.config
    tokens = {config.image_token_id, getattr(config, "video_token_id", config.image_token_id)}
    return sum(int((batch["input_ids"] == token).sum()) for token in tokens)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_runs_forward_and_generates(twin: Twin, form: str) -> None:
    batch = inputs(twin.processor, form)
    length = batch["input_ids"].shape[1]
    out = logits(twin.model, batch)
    assert out.shape == (1, length, twin.model.config.text_config.vocab_size)
    assert out.isfinite().all()
    # eos is taken away so that three tokens come; the stored one is held by a test of its own
    answer = twin.model.generate(**batch, max_new_tokens=3, do_sample=False, eos_token_id=None)
    assert answer.shape == (1, length + 3)
    assert answer[0, length] == out[0, -1].argmax()


@pytest.mark.parametrize("form", FORMS)
def test_placeholders_are_as_many_as_the_layout_says(twin: Twin, form: str) -> None:
    assert visual(twin, inputs(twin.processor, form)) == VISUAL[twin.family][form]


def test_the_processor_gives_the_keys_of_the_real_one(twin: Twin) -> None:
    assert set(inputs(twin.processor, "both")) == {"input_ids", "attention_mask"} | KEYS[twin.family]
    assert set(inputs(twin.processor, "text")) == {"input_ids", "attention_mask"} | (
        {"mm_token_type_ids"} & KEYS[twin.family]
    )


@pytest.mark.parametrize("form", FORMS)
def test_saved_and_loaded_again_nothing_changes_by_a_bit(twin: Twin, form: str, tmp_path: Path) -> None:
    twin.model.save_pretrained(tmp_path)
    twin.processor.save_pretrained(tmp_path)
    again = load(twin.family, tmp_path)
    before, after = inputs(twin.processor, form), inputs(again.processor, form)
    assert set(before) == set(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(logits(twin.model, before), logits(again.model, after))


@pytest.mark.parametrize("form", ["one", "two", "video", "both"])
def test_other_pixels_and_other_text_give_other_logits(twin: Twin, form: str) -> None:
    seen = logits(twin.model, inputs(twin.processor, form))[0, -1]
    for other in (inputs(twin.processor, form, seed=40), inputs(twin.processor, form, text="What is in?")):
        assert (seen - logits(twin.model, other)[0, -1]).abs().max() > 0.05


def test_dropping_any_one_visual_token_changes_the_logits(twin: Twin) -> None:
    batch = inputs(twin.processor, "one")
    places = (batch["input_ids"][0] == twin.model.config.image_token_id).nonzero()[:, 0].tolist()
    mask = torch.ones(len(places) + 1, batch["input_ids"].shape[1], dtype=torch.long)
    mask[range(1, len(mask)), places] = 0
    embeds: list[torch.Tensor] = []
    hook = twin.model.model.language_model.register_forward_pre_hook(
        lambda _, __, kwargs: embeds.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    try:
        logits(twin.model, batch)
    finally:
        hook.remove()
    with torch.inference_mode():
        hidden = twin.model.model.language_model(
            inputs_embeds=embeds[0].expand(len(mask), -1, -1), attention_mask=mask, use_cache=False
        ).last_hidden_state[:, -1]
        out = twin.model.lm_head(hidden)
    assert (out[1:] - out[0]).abs().amax(-1).min() > 1e-3  # float32 noise is below 1e-5


def test_attention_is_far_from_uniform(twin: Twin) -> None:
    twin.model.set_attn_implementation("eager")
    try:
        with torch.inference_mode():
            layers = twin.model(**inputs(twin.processor, "one"), output_attentions=True).attentions
    finally:
        twin.model.set_attn_implementation("sdpa")
    last = torch.stack([layer[0, :, -1] for layer in layers])  # [layers, heads, keys]
    assert (last.amax(-1) * last.shape[-1]).mean() > 4  # the strongest key of a uniform row would give 1


def test_special_tokens_are_whole_and_the_ends_are_set(twin: Twin) -> None:
    tokenizer = twin.processor.tokenizer
    for name in ("<|endoftext|>", "<|im_start|>", "<|im_end|>"):
        assert tokenizer(f"a{name}b")["input_ids"][1:-1] == [tokenizer.convert_tokens_to_ids(name)]
    assert tokenizer.decode(tokenizer("\x00é€ plain")["input_ids"]) == "\x00é€ plain"
    assert twin.model.generation_config.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert twin.model.generation_config.pad_token_id == tokenizer.convert_tokens_to_ids("<|endoftext|>")


def test_two_videos_of_unequal_length_are_for_qwen2_vl_alone(twin: Twin) -> None:
    videos = [[picture(48, 48, frame) for frame in range(count)] for count in (4, 6)]
    text = [chat(twin.processor, 0, 2, "hi")]
    if twin.family == "qwen2_vl":  # frames are pooled in pairs, patches of all videos stand in one list
        batch = twin.processor(text=text, videos=videos, do_sample_frames=False, return_tensors="pt")
        assert batch["video_grid_thw"].tolist() == [[2, 6, 6], [3, 6, 6]]
        assert logits(twin.model, batch).isfinite().all()
    else:  # both processors stack the videos of a call
        with pytest.raises(ValueError, match="stack expects each tensor to be equal size, but got"):
            twin.processor(text=text, videos=videos, do_sample_frames=False, return_tensors="pt")


def test_llava_onevision_tiles_two_images_unless_they_come_as_one_nested_list(tmp_path: Path) -> None:
    twin = load("llava_onevision", twins.build("llava_onevision", tmp_path))
    pair, text = [picture(60, 50, 0), picture(40, 70, 1)], [chat(twin.processor, 2, 0, "hi")]
    flat = twin.processor(text=text, images=pair, return_tensors="pt")
    nested = twin.processor(text=text, images=[pair], return_tensors="pt")
    assert (flat["batch_num_images"].tolist(), visual(twin, flat)) == ([1, 1], 70 + 56)
    assert (nested["batch_num_images"].tolist(), visual(twin, nested)) == ([2], 2 * (16 + 1))
    assert nested["pixel_values"].shape == (2, 1, 3, 32, 32)
    assert logits(twin.model, nested).isfinite().all()
    without = {name: value for name, value in nested.items() if name != "batch_num_images"}
    # the model then takes each image for one that was tiled
    with pytest.raises(
        RuntimeError, match=r"split_with_sizes expects split_sizes to sum exactly to 2 .* split_sizes=\[5, 5\]"
    ):
        logits(twin.model, without)


@pytest.mark.parametrize("family", ["llava_onevision", "internvl2_5"])
def test_equal_patches_in_different_places_are_told_apart(family: str, tmp_path: Path) -> None:
    # not qwen2_vl: rotary positions move attention weights only, and equal values mix to the same value
    model = load(family, twins.build(family, tmp_path)).model.model
    with torch.inference_mode():
        patches = model.vision_tower(torch.full((1, 3, 32, 32), 0.3)).last_hidden_state[0]
    assert torch.pdist(patches).min() > 0.1


@pytest.mark.parametrize("family", twins.FAMILIES)
def test_seed_shape_and_dtype_are_those_asked_for(family: str, tmp_path: Path) -> None:
    def weights(name: str, **options: Any) -> Any:
        return load(family, twins.build(family, tmp_path / name, **options)).model

    first, same, other = weights("a").state_dict(), weights("b").state_dict(), weights("c", seed=1).state_dict()
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])
    model = weights("d", layers=2, heads=6, kv_heads=3, dtype=torch.bfloat16)
    text = model.config.text_config
    assert (text.num_hidden_layers, text.num_attention_heads, text.num_key_value_heads) == (2, 6, 3)
    assert model.model.language_model.layers[0].self_attn.head_dim == 16
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
