"""A tiny InternVL2.5."""

from __future__ import annotations

from typing import Any

import twins


def twin(layers: int, heads: int, kv_heads: int) -> tuple[Any, Any]:
    """Tiles of 32 pixels with 4 tokens each, up to 4 tiles and a thumbnail."""
    import transformers as hf
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

    names = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tokenizer = twins.tokenizer(names)
    config = hf.InternVLConfig(
        vision_config=hf.InternVLVisionConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=[32, 32],
            patch_size=[8, 8],
        ),
        text_config=hf.Qwen2Config(**twins.text(tokenizer, layers, heads, kv_heads)),
        image_token_id=tokenizer.context_image_token_id,
        image_seq_length=4,
    )
    size = {"size": {"height": 32, "width": 32}, **twins.MEAN}
    processor = hf.InternVLProcessor(
        image_processor=GotOcr2ImageProcessorPil(crop_to_patches=True, min_patches=1, max_patches=4, **size),
        video_processor=hf.InternVLVideoProcessor(**size),
        tokenizer=tokenizer,
        image_seq_length=4,
        chat_template=twins.template("<IMG_CONTEXT>\n", "<video>\n"),
    )
    return hf.InternVLForConditionalGeneration(config), processor
