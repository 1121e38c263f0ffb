"""A tiny Qwen3-VL."""

from __future__ import annotations

from typing import Any

import twins
from twin_families.qwen2_5_vl import NAMES


def twin(layers: int, heads: int, kv_heads: int) -> tuple[Any, Any]:
    """Deep features behind the first three layers of the decoder, from the first three of the tower's four."""
    import transformers as hf
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    tokenizer = twins.tokenizer(NAMES)
    text = twins.text(tokenizer, layers, heads, kv_heads)
    vision = {"depth": 4, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "patch_size": 8}
    deep = {"deepstack_visual_indexes": [0, 1, 2], "num_position_embeddings": 36}
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2], "mrope_interleaved": True}
    config = hf.Qwen3VLConfig(
        vision_config={**vision, **deep, "out_hidden_size": text["hidden_size"]},
        text_config={**text, "head_dim": 16, "rope_parameters": rope},
        **{f"{name}_id": getattr(tokenizer, f"{name}_id") for name in NAMES},
    )
    pixels = {
        "size": {"shortest_edge": 16 * 16, "longest_edge": 96 * 96},
        "patch_size": 8,
        "merge_size": 2,
        **twins.MEAN,
    }
    start, end = NAMES["vision_start_token"], NAMES["vision_end_token"]
    processor = hf.Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessorPil(**pixels),
        video_processor=hf.Qwen3VLVideoProcessor(**pixels),
        tokenizer=tokenizer,
        chat_template=twins.template(f"{start}<|image_pad|>{end}", "<|video_pad|>"),
    )
    return hf.Qwen3VLForConditionalGeneration(config), processor
