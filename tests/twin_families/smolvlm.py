"""A tiny SmolVLM2."""

from __future__ import annotations

from typing import Any

import twins

NAMES = {
    "image_token": "<image>",
    "fake_image_token": "<fake_token_around_image>",
    "global_image_token": "<global-img>",
    "end_of_utterance_token": "<end_of_utterance>",
}
TILES = {f"tile_{row}_{column}": f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)}
TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% elif part['type'] == 'video' %}<video>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)


def twin(layers: int, heads: int, kv_heads: int) -> tuple[Any, Any]:
    """Tiles of 32 pixels with 4 tokens each, up to 4 tiles and the whole picture behind them."""
    import transformers as hf
    from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

    tokenizer = twins.tokenizer({**NAMES, **TILES})
    config = hf.SmolVLMConfig(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 8,
        },
        text_config={"model_type": "llama", **twins.text(tokenizer, layers, heads, kv_heads)},
        image_token_id=tokenizer.image_token_id,
        pad_token_id=tokenizer.pad_token_id,
        scale_factor=2,
    )
    sizes = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}, **twins.MEAN}
    sampling = {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": 32}}
    processor = hf.SmolVLMProcessor(
        image_processor=SmolVLMImageProcessorPil(**sizes),
        video_processor=hf.SmolVLMVideoProcessor(**sizes, video_sampling=sampling),
        tokenizer=tokenizer,
        image_seq_len=4,
        chat_template=TEMPLATE,
    )
    return hf.SmolVLMForConditionalGeneration(config), processor
