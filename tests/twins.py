"""Tiny random twins of the three families: real classes and real processors, built from configs, loadable offline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from effivlm.models._torchvision import ensure_torchvision

FAMILIES = ("llava_onevision", "qwen2_vl", "internvl2_5")
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MEAN = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
TEMPLATE = (  # Qwen2-VL's own also starts with a system message; in bytes that would outweigh the picture
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}IMAGE{% elif part['type'] == 'video' %}VIDEO"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAVA_TEMPLATE = (  # as the original: images, then videos, then text, in whatever order they were given
    "{% for message in messages %}<|im_start|>{{ message['role'] }} "
    "{% for part in message['content'] if part['type'] == 'image' %}<image>{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'video' %}<video>{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ '\\n' + part['text'] }}{% endfor %}<|im_end|>"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build(
    family: str,
    folder: Path,
    *,
    seed: int = 0,
    layers: int = 4,
    heads: int = 4,
    kv_heads: int = 2,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Save a twin of `family` into `folder`; its weights are wide enough that a dropped token changes the logits."""
    ensure_torchvision()
    torch.manual_seed(seed)
    model, processor = _BUILDERS[family](layers, heads, kv_heads)
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding | nn.Conv2d | nn.Conv3d):
            fan_in = module.weight[0].numel() if not isinstance(module, nn.Embedding) else 1
            nn.init.normal_(module.weight, std=1.2 / fan_in**0.5)
    for name, parameter in model.named_parameters():
        if name.endswith((".cls_token", ".position_embeddings")):  # InternVL's are zero: no patch would have a place
            nn.init.normal_(parameter, std=0.5)
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.to(dtype).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _tokenizer(extra: dict[str, str]) -> Any:
    """Bytes and no merges, so that any text works."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = [*SPECIALS, *extra.values()]
    vocabulary = {token: number for number, token in enumerate([*special, *alphabet])}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    # Here and not below: beside a dict of extra tokens transformers drops `additional_special_tokens` in silence.
    inner.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=extra,
    )


def _text(tokenizer: Any, layers: int, heads: int, kv_heads: int) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 16 * heads,
        "intermediate_size": 96,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _template(image: str, video: str) -> str:
    return TEMPLATE.replace("IMAGE", image).replace("VIDEO", video)


def _llava_onevision(layers: int, heads: int, kv_heads: int) -> tuple[Any, Any]:
    """Crops of 16 tokens; one image becomes its crop and two or four tiles."""
    import transformers as hf
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil

    tokenizer = _tokenizer({"image_token": "<image>", "video_token": "<video>"})
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
        text_config=hf.Qwen2Config(**_text(tokenizer, layers, heads, kv_heads)),
        image_token_index=tokenizer.image_token_id,
        video_token_index=tokenizer.video_token_id,
        image_grid_pinpoints=pinpoints,
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
    )
    size = {"size": {"height": 32, "width": 32}, **MEAN}
    processor = hf.LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessorPil(image_grid_pinpoints=pinpoints, **size),
        video_processor=hf.LlavaOnevisionVideoProcessor(**size),
        tokenizer=tokenizer,
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=LLAVA_TEMPLATE,
    )
    return hf.LlavaOnevisionForConditionalGeneration(config), processor


def _qwen2_vl(layers: int, heads: int, kv_heads: int) -> tuple[Any, Any]:
    """Patches of 8 pixels, 2 x 2 to a token; any multiple of 16 pixels."""
    import transformers as hf
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    names = {
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "vision_start_token": "<|vision_start|>",
        "vision_end_token": "<|vision_end|>",
    }
    tokenizer = _tokenizer(names)
    text = _text(tokenizer, layers, heads, kv_heads)
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
    pixels = {"size": {"shortest_edge": 16 * 16, "longest_edge": 96 * 96}, "patch_size": 8, "merge_size": 2, **MEAN}
    start, end = names["vision_start_token"], names["vision_end_token"]
    processor = hf.Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessorPil(**pixels),
        video_processor=hf.Qwen2VLVideoProcessor(**pixels),
        tokenizer=tokenizer,
        chat_template=_template(f"{start}<|image_pad|>{end}", f"{start}<|video_pad|>{end}"),
    )
    return hf.Qwen2VLForConditionalGeneration(config), processor


def _internvl2_5(layers: int, heads: int, kv_heads: int) -> tuple[Any, Any]:
    """Tiles of 32 pixels with 4 tokens each, up to 4 tiles and a thumbnail."""
    import transformers as hf
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

    names = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tokenizer = _tokenizer(names)
    config = hf.InternVLConfig(
        vision_config=hf.InternVLVisionConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=[32, 32],
            patch_size=[8, 8],
        ),
        text_config=hf.Qwen2Config(**_text(tokenizer, layers, heads, kv_heads)),
        image_token_id=tokenizer.context_image_token_id,
        image_seq_length=4,
    )
    size = {"size": {"height": 32, "width": 32}, **MEAN}
    processor = hf.InternVLProcessor(
        image_processor=GotOcr2ImageProcessorPil(crop_to_patches=True, min_patches=1, max_patches=4, **size),
        video_processor=hf.InternVLVideoProcessor(**size),
        tokenizer=tokenizer,
        image_seq_length=4,
        chat_template=_template("<IMG_CONTEXT>\n", "<video>\n"),
    )
    return hf.InternVLForConditionalGeneration(config), processor


_BUILDERS: dict[str, Callable[[int, int, int], tuple[Any, Any]]] = {
    "llava_onevision": _llava_onevision,
    "qwen2_vl": _qwen2_vl,
    "internvl2_5": _internvl2_5,
}
