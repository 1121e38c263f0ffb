"""A tiny LLaVA-NeXT."""

from __future__ import annotations

from typing import Any

import twins


def twin(layers: int, heads: int, kv_heads: int) -> tuple[Any, Any]:
    """Crops of 16 patches and a class token; a picture becomes its crop and two or four tiles; features leave the last but one of
    three layers."""
    import transformers as hf
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

    tokenizer = twins.tokenizer({"image_token": "<image>"})
    pinpoints = [[32, 64], [64, 32], [64, 64]]
    config = hf.LlavaNextConfig(
        vision_config=hf.CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=32,
            patch_size=8,
        ),
        text_config=hf.LlamaConfig(**twins.text(tokenizer, layers, heads, kv_heads)),
        image_token_index=tokenizer.image_token_id,
        image_grid_pinpoints=pinpoints,
        image_seq_length=16,
    )
    processor = hf.LlavaNextProcessor(
        image_processor=LlavaNextImageProcessorPil(
            size={"shortest_edge": 32},
            crop_size={"height": 32, "width": 32},
            image_grid_pinpoints=pinpoints,
            **twins.MEAN,
        ),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=twins.template("<image>\n", "<video>"),
    )
    return hf.LlavaNextForConditionalGeneration(config), processor
