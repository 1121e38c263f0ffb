"""A tiny Qwen2.5-VL."""

from __future__ import annotations

from typing import Any

import twins

NAMES = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
}


def twin(layers: int, heads: int, kv_heads: int) -> tuple[Any, Any]:
    """Windows of 2 x 2 tokens in the first layer of the tower, whole pictures in the second; four positions a second."""
    import transformers as hf
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    tokenizer = twins.tokenizer(NAMES)
    text = twins.text(tokenizer, layers, heads, kv_heads)
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 2,
        "patch_size": 8,
        "window_size": 32,
    }
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
    config = hf.Qwen2_5_VLConfig(
        vision_config={**vision, "out_hidden_size": text["hidden_size"], "fullatt_block_indexes": [1]},
        text_config={**text, "rope_parameters": rope},
        **{f"{name}_id": getattr(tokenizer, f"{name}_id") for name in NAMES},
    )
    pixels = {
        "size": {"shortest_edge": 16 * 16, "longest_edge": 96 * 96},
        "patch_size": 8,
        "merge_size": 2,
        **twins.MEAN,
    }
    start, end = NAMES["vision_start_token"], NAMES["vision_end_token"]
    processor = hf.Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessorPil(**pixels),
        video_processor=hf.Qwen2VLVideoProcessor(**pixels),
        tokenizer=tokenizer,
        chat_template=twins.template(f"{start}<|image_pad|>{end}", f"{start}<|video_pad|>{end}"),
    )
    return hf.Qwen2_5_VLForConditionalGeneration(config), processor
