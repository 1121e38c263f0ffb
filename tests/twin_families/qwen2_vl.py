"""A tiny Qwen2-VL."""

from __future__ import annotations

from typing import Any

import twins


def twin(layers: int, heads: int, kv_heads: int) -> tuple[Any, Any]:
    """Patches of 8 pixels, 2 x 2 to a token; any multiple of 16 pixels."""
    import transformers as hf
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    names = {
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "vision_start_token": "<|vision_start|>",
        "vision_end_token": "<|vision_end|>",
    }
    tokenizer = twins.tokenizer(names)
    text = twins.text(tokenizer, layers, heads, kv_heads)
    vision = {"depth": 2, "embed_dim": 32, "num_heads": 2, "mlp_ratio": 2, "patch_size": 8}
    config = hf.Qwen2VLConfig(
        vision_config={**vision, "hidden_size": text["hidden_size"]},
        text_config={
            **text,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
        },
        image_token_id=tokenizer.image_token_id,
        video_token_id=tokenizer.video_token_id,
        vision_start_token_id=tokenizer.vision_start_token_id,
        vision_end_token_id=tokenizer.vision_end_token_id,
    )
    pixels = {
        "size": {"shortest_edge": 16 * 16, "longest_edge": 96 * 96},
        "patch_size": 8,
        "merge_size": 2,
        **twins.MEAN,
    }
    start, end = names["vision_start_token"], names["vision_end_token"]
    processor = hf.Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessorPil(**pixels),
        video_processor=hf.Qwen2VLVideoProcessor(**pixels),
        tokenizer=tokenizer,
        chat_template=twins.template(f"{start}<|image_pad|>{end}", f"{start}<|video_pad|>{end}"),
    )
    return hf.Qwen2VLForConditionalGeneration(config), processor
