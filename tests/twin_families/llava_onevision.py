"""A tiny LLaVA-OneVision."""

from __future__ import annotations

from typing import Any

import twins

TEMPLATE = (  # as the original: images, then videos, then text, in whatever order they were given
    "{% for message in messages %}<|im_start|>{{ message['role'] }} "
    "{% for part in message['content'] if part['type'] == 'image' %}<image>{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'video' %}<video>{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ '\\n' + part['text'] }}{% endfor %}<|im_end|>"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def twin(layers: int, heads: int, kv_heads: int) -> tuple[Any, Any]:
    """Crops of 16 tokens; one image becomes its crop and two or four tiles."""
    import transformers as hf
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil

    tokenizer = twins.tokenizer({"image_token": "<image>", "video_token": "<video>"})
    pinpoints = [[32, 64], [64, 32], [64, 64]]
    config = hf.LlavaOnevisionConfig(
        vision_config=hf.SiglipVisionConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=32,
            patch_size=8,
            vision_use_head=False,
        ),
        text_config=hf.Qwen2Config(**twins.text(tokenizer, layers, heads, kv_heads)),
        image_token_index=tokenizer.image_token_id,
        video_token_index=tokenizer.video_token_id,
        image_grid_pinpoints=pinpoints,
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
    )
    size = {"size": {"height": 32, "width": 32}, **twins.MEAN}
    processor = hf.LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessorPil(image_grid_pinpoints=pinpoints, **size),
        video_processor=hf.LlavaOnevisionVideoProcessor(**size),
        tokenizer=tokenizer,
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=TEMPLATE,
    )
    return hf.LlavaOnevisionForConditionalGeneration(config), processor
