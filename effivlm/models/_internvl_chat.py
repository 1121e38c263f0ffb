"""The original `internvl_chat` repositories (InternVL2.5, 3 and 3.5): what their names and configurations are in native form.

Vision tensors are renamed and `qkv` is cut in three; InternLM2's `wqkv`, which holds a group of query heads, a key head and a
value head after each other, is regrouped for the Llama class; Qwen2 and Qwen3 decoders keep their names. Norms of queries and
keys (InternViT-6B) are kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor

Made = Mapping[str, Callable[[Tensor], Tensor]]
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
TOKENS = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
SISTER = "for InternVL2.5-8B that of OpenGVLab/InternVL2_5-8B-MPO-hf"
END_OF_TURN = "<|im_end|>"
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<IMG_CONTEXT>\n' }}{% elif part['type'] == 'video' %}{{ '<video>\n' }}"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}{{ '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
DECODERS = {"InternLM2ForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2", "Qwen3ForCausalLM": "qwen3"}
SIZES = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "hidden_act", "head_dim", "attention_bias"),
    *("use_sliding_window", "sliding_window", "max_window_layers"),
)
VISION = {
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_hidden_layers": "num_hidden_layers",
    "num_attention_heads": "num_attention_heads",
    "num_channels": "num_channels",
    "patch_size": "patch_size",
    "layer_norm_eps": "layer_norm_eps",
    "hidden_act": "hidden_act",
    "norm_type": "norm_type",
    "qkv_bias": "attention_bias",
    "qk_normalization": "use_qk_norm",
}
# what a configuration without an entry means: the original class's defaults
VISION_DEFAULTS = {"qkv_bias": False, "qk_normalization": True, "norm_type": "rms_norm", "layer_norm_eps": 1e-6}

_WHOLE = {
    "mlp1.0.": "model.multi_modal_projector.layer_norm.",
    "mlp1.1.": "model.multi_modal_projector.linear_1.",
    "mlp1.3.": "model.multi_modal_projector.linear_2.",
    "vision_model.embeddings.class_embedding": "model.vision_tower.embeddings.cls_token",
    "vision_model.embeddings.position_embedding": "model.vision_tower.embeddings.position_embeddings",
    "vision_model.embeddings.patch_embedding.": "model.vision_tower.embeddings.patch_embeddings.projection.",
    "language_model.model.tok_embeddings.": "model.language_model.embed_tokens.",
    "language_model.model.embed_tokens.": "model.language_model.embed_tokens.",
    "language_model.model.norm.": "model.language_model.norm.",
    "language_model.output.": "lm_head.",
    "language_model.lm_head.": "lm_head.",
}
_VISION_LAYER = {
    "attn.proj.": "attention.projection_layer.",
    "attn.q_norm.": "attention.q_norm.",
    "attn.k_norm.": "attention.k_norm.",
    "norm1.": "layernorm_before.",
    "norm2.": "layernorm_after.",
    "ls1": "lambda_1",
    "ls2": "lambda_2",
    "mlp.fc1.": "mlp.fc1.",
    "mlp.fc2.": "mlp.fc2.",
}
_INTERNLM2_LAYER = {
    "attention.wo.": "self_attn.o_proj.",
    "feed_forward.w1.": "mlp.gate_proj.",
    "feed_forward.w2.": "mlp.down_proj.",
    "feed_forward.w3.": "mlp.up_proj.",
    "attention_norm.": "input_layernorm.",
    "ffn_norm.": "post_attention_layernorm.",
}
_LAYER = re.compile(r"(vision_model\.encoder|language_model\.model)\.layers\.(\d+)\.(.+)")
_IGNORED = re.compile(r".*\.rotary_emb\.inv_freq")


def made(name: str, config: Mapping[str, Any]) -> Made | None:
    """Native tensors that an original one becomes, each with how it is cut out of it.

    {} for a buffer that is computed, None for a name that is not known. `config` is the native configuration.
    """
    if _IGNORED.fullmatch(name):
        return {}
    layer = _LAYER.fullmatch(name)
    if layer is None:
        found = _renamed(name, _WHOLE)
        return None if found is None else {found: _same}
    part, number, rest = layer.groups()
    if part == "vision_model.encoder":
        return _vision(f"model.vision_tower.encoder.layer.{number}.", rest)
    text = config["text_config"]
    if text["model_type"] == "llama":
        return _internlm2(f"model.language_model.layers.{number}.", rest, text)
    return {f"model.language_model.layers.{number}.{rest}": _same}


def _vision(place: str, rest: str) -> Made | None:
    if rest.startswith("attn.qkv."):
        kind = rest.removeprefix("attn.qkv.")
        return {f"{place}attention.{word}_proj.{kind}": partial(_third, at) for at, word in enumerate("qkv")}
    found = _renamed(rest, _VISION_LAYER)
    return None if found is None else {place + found: _same}


def _internlm2(place: str, rest: str, text: Mapping[str, Any]) -> Made | None:
    if rest.startswith("attention.wqkv."):
        kind = rest.removeprefix("attention.wqkv.")
        groups, heads = int(text["num_key_value_heads"]), int(text["num_attention_heads"])
        return {
            f"{place}self_attn.{word}_proj.{kind}": partial(_grouped, word, groups, heads // groups) for word in "qkv"
        }
    found = _renamed(rest, _INTERNLM2_LAYER)
    return None if found is None else {place + found: _same}


def _renamed(name: str, table: Mapping[str, str]) -> str | None:
    """The name by a table of beginnings; an entry without a dot at its end is a whole name."""
    for old, new in table.items():
        if name == old or (old.endswith(".") and name.startswith(old)):
            return new + name.removeprefix(old)
    return None


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _third(at: int, tensor: Tensor) -> Tensor:
    part: Tensor = tensor.chunk(3)[at]
    return part


def _grouped(word: str, groups: int, queries: int, tensor: Tensor) -> Tensor:
    """Query, key or value rows of [groups * (queries + 2) * head, ...]: per group its query heads, its key, its value."""
    rows = tensor.unflatten(0, (groups, queries + 2, -1))
    cut = {"q": rows[:, :queries], "k": rows[:, queries : queries + 1], "v": rows[:, queries + 1 :]}[word]
    flat: Tensor = cut.flatten(0, 2)
    return flat


def configured(original: Mapping[str, Any], token: Callable[[str], int]) -> dict[str, Any]:
    """The native configuration; `token` gives ids of special tokens.

    Raises:
        ValueError: a decoder that is not known, or a setting that the native class does not have.
    """
    text, vision = original["llm_config"], {**VISION_DEFAULTS, **original["vision_config"]}
    kind = (text.get("architectures") or ["none"])[0]
    if kind not in DECODERS:
        raise ValueError(f"its decoder is {kind}; known: {', '.join(DECODERS)}")
    if original.get("ps_version", "v1") != "v2":
        raise ValueError(f"its pixel shuffle is {original.get('ps_version', 'v1')!r}; the native class has 'v2'")
    if DECODERS[kind] == "llama" and text.get("bias"):
        raise ValueError("its InternLM2 has biases, which no published one has")
    side = int(original.get("force_image_size") or vision["image_size"])
    if side != vision["image_size"]:
        raise ValueError(f"its tower was made for {vision['image_size']} pixels and is used with {side}")
    ratio = float(original.get("downsample_ratio", 0.5))
    return {
        "model_type": "internvl",
        "architectures": ["InternVLForConditionalGeneration"],
        "image_token_id": token(TOKENS["context_image_token"]),
        "image_seq_length": int((side // int(vision["patch_size"])) ** 2 * ratio**2),
        "downsample_ratio": ratio,
        "vision_feature_layer": int(original.get("select_layer", -1)),
        "vision_feature_select_strategy": "default",
        "tie_word_embeddings": False,
        "dtype": original.get("torch_dtype") or "bfloat16",
        "vision_config": {
            "image_size": [side, side],
            **{new: vision[old] for old, new in VISION.items() if old in vision},
        },
        "text_config": {
            "model_type": DECODERS[kind],
            "tie_word_embeddings": False,
            **{name: text[name] for name in SIZES if name in text},
            "rope_parameters": _rope(text),
            "bos_token_id": text.get("bos_token_id"),
            "eos_token_id": token(END_OF_TURN),
        },
    }


def _rope(text: Mapping[str, Any]) -> dict[str, Any]:
    scaling = dict(text.get("rope_scaling") or {})
    kind = scaling.pop("rope_type", None) or scaling.pop("type", None) or "default"
    scaling.pop("type", None)
    return {"rope_type": kind, "rope_theta": float(text.get("rope_theta", 10_000.0)), **scaling}


def ends(original: Mapping[str, Any], token: Callable[[str], int]) -> list[int]:
    """Tokens that end an answer: the end of a turn, then the end of a text."""
    last = "</s>" if original["llm_config"]["architectures"][0] == "InternLM2ForCausalLM" else "<|endoftext|>"
    return [token(END_OF_TURN), token(last)]


def processor(original: Mapping[str, Any], config: Mapping[str, Any], tokenizer: Any) -> Any:
    """The native processor: tiles as the original cuts them, a thumbnail where there is more than one."""
    import transformers

    if not original.get("use_thumbnail", False):
        raise ValueError("it was made without a thumbnail, which the native processor always adds")
    height, width = config["vision_config"]["image_size"]
    pixels = {"size": {"height": height, "width": width}, "image_mean": MEAN, "image_std": STD}
    tiles = {
        "min_patches": int(original.get("min_dynamic_patch", 1)),
        "max_patches": int(original.get("max_dynamic_patch", 6)),
    }
    return transformers.InternVLProcessor(
        image_processor=transformers.GotOcr2ImageProcessor(crop_to_patches=True, **tiles, **pixels),
        video_processor=transformers.InternVLVideoProcessor(**pixels),
        tokenizer=tokenizer,
        image_seq_length=config["image_seq_length"],
        chat_template=TEMPLATE,
    )
