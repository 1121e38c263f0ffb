"""Tiny checkpoints in the format of InternVL's authors, made from native models by a table of their own: the other way round.

The rules are read off the published modelling code: one fused projection per tower layer, InternLM2's query heads of a group
before its key and its value, an MLP numbered as in a sequence.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from effivlm.models._torchvision import ensure_torchvision

ADDED = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "</s>", "<img>", "</img>", "<IMG_CONTEXT>", "<quad>")
KINDS = {"internlm2": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
ARCHITECTURES = {"internlm2": "InternLM2ForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
TEXT = {
    "vocab_size": 256 + len(ADDED),
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e6,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
}


def configuration(kind: str, large: bool) -> dict[str, Any]:
    """config.json as the authors write it; a `large` tower is InternViT-6B's kind: norms of queries and keys, no biases."""
    text = {**TEXT, "architectures": [ARCHITECTURES[kind]], "model_type": kind}
    if kind == "internlm2":
        text |= {"bias": False, "rope_scaling": {"factor": 2.0, "type": "dynamic"}, "eos_token_id": 2}
    if kind == "qwen3":
        text |= {"head_dim": 16, "attention_bias": False}
    tower = {"qk_normalization": large, "qkv_bias": not large, "norm_type": "rms_norm" if large else "layer_norm"}
    vision = {**VISION, **tower, "patch_size": 8, "layer_norm_eps": 1e-6, "model_type": "intern_vit_6b"}
    tiles = {"min_dynamic_patch": 1, "max_dynamic_patch": 4, "use_thumbnail": True, "dynamic_image_size": True}
    facts = {"force_image_size": 32, "template": "internvl2_5", "torch_dtype": "float32", "select_layer": -1}
    return {
        "model_type": "internvl_chat",
        "architectures": ["InternVLChatModel"],
        "auto_map": {"AutoModel": "code.Model"},
        "llm_config": text,
        "vision_config": vision,
        "ps_version": "v2",
        "downsample_ratio": 0.5,
        **tiles,
        **facts,
    }


def native(kind: str, large: bool, seed: int = 0) -> Any:
    """The native model of such a configuration, with weights far from their initial values."""
    ensure_torchvision()
    import transformers

    text = {**TEXT, "model_type": KINDS[kind], "bos_token_id": None}
    theta = {"rope_theta": text.pop("rope_theta")}
    text["rope_parameters"] = {"rope_type": "default", **theta}
    if kind == "internlm2":
        text["rope_parameters"] = {"rope_type": "dynamic", "factor": 2.0, **theta}
    if kind == "qwen3":
        text |= {"head_dim": 16}
    tower = {"use_qk_norm": large, "attention_bias": not large, "norm_type": "rms_norm" if large else "layer_norm"}
    sizes = {**VISION, "image_size": [32, 32], "patch_size": [8, 8]}
    config = transformers.InternVLConfig(
        text_config=text,
        vision_config={**sizes, **tower},
        image_token_id=256 + ADDED.index("<IMG_CONTEXT>"),
        image_seq_length=4,
        tie_word_embeddings=False,
    )
    torch.manual_seed(seed)
    model = transformers.InternVLForConditionalGeneration(config).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, 1.0 if parameter.ndim == 1 else 0.0, 0.3 if parameter.ndim == 1 else 0.15)
    return model


def original(model: Any, kind: str) -> dict[str, Tensor]:
    """The authors' names and layouts of a native model's tensors."""
    state = {name.removeprefix("model."): tensor for name, tensor in model.state_dict().items()}
    made = {"language_model.model.rotary_emb.inv_freq": torch.ones(4)}  # older repositories hold such buffers
    for name in ("weight", "bias"):
        for place, part in ((0, "layer_norm"), (1, "linear_1"), (3, "linear_2")):
            made[f"mlp1.{place}.{name}"] = state[f"multi_modal_projector.{part}.{name}"]
        made[f"vision_model.embeddings.patch_embedding.{name}"] = state[
            f"vision_tower.embeddings.patch_embeddings.projection.{name}"
        ]
    made["vision_model.embeddings.class_embedding"] = state["vision_tower.embeddings.cls_token"]
    made["vision_model.embeddings.position_embedding"] = state["vision_tower.embeddings.position_embeddings"]
    for number in range(model.config.vision_config.num_hidden_layers):
        made |= _tower_layer(state, f"vision_tower.encoder.layer.{number}.", f"vision_model.encoder.layers.{number}.")
    text = model.config.text_config
    old = kind == "internlm2"
    made[f"language_model.model.{'tok_embeddings' if old else 'embed_tokens'}.weight"] = state[
        "language_model.embed_tokens.weight"
    ]
    made["language_model.model.norm.weight"] = state["language_model.norm.weight"]
    made[f"language_model.{'output' if old else 'lm_head'}.weight"] = state["lm_head.weight"]
    for number in range(text.num_hidden_layers):
        before, after = f"language_model.layers.{number}.", f"language_model.model.layers.{number}."
        if old:
            made |= _internlm2_layer(state, before, after, text.num_key_value_heads, text.hidden_size)
        else:
            made |= {name.replace(before, after): one for name, one in state.items() if name.startswith(before)}
    return {name: tensor.clone().contiguous() for name, tensor in made.items()}


def _tower_layer(state: dict[str, Tensor], before: str, after: str) -> dict[str, Tensor]:
    made = {f"{after}ls1": state[f"{before}lambda_1"], f"{after}ls2": state[f"{before}lambda_2"]}
    for name in ("weight", "bias"):
        for new, there in (
            *(
                ("layernorm_before", "norm1"),
                ("layernorm_after", "norm2"),
                ("mlp.fc1", "mlp.fc1"),
                ("mlp.fc2", "mlp.fc2"),
            ),
            *(("attention.projection_layer", "attn.proj"), ("attention.q_norm", "attn.q_norm")),
            ("attention.k_norm", "attn.k_norm"),
        ):
            if f"{before}{new}.{name}" in state:
                made[f"{after}{there}.{name}"] = state[f"{before}{new}.{name}"]
        if f"{before}attention.q_proj.{name}" in state:
            made[f"{after}attn.qkv.{name}"] = torch.cat(
                [state[f"{before}attention.{word}_proj.{name}"] for word in "qkv"]
            )
    return made


def _internlm2_layer(state: dict[str, Tensor], before: str, after: str, groups: int, width: int) -> dict[str, Tensor]:
    query, key, value = (state[f"{before}self_attn.{word}_proj.weight"] for word in "qkv")
    fused = [
        torch.cat(
            [part[number * len(part) // groups : (number + 1) * len(part) // groups] for part in (query, key, value)]
        )
        for number in range(groups)
    ]
    return {
        f"{after}attention.wqkv.weight": torch.cat(fused).reshape(-1, width),
        f"{after}attention.wo.weight": state[f"{before}self_attn.o_proj.weight"],
        f"{after}feed_forward.w1.weight": state[f"{before}mlp.gate_proj.weight"],
        f"{after}feed_forward.w3.weight": state[f"{before}mlp.up_proj.weight"],
        f"{after}feed_forward.w2.weight": state[f"{before}mlp.down_proj.weight"],
        f"{after}attention_norm.weight": state[f"{before}input_layernorm.weight"],
        f"{after}ffn_norm.weight": state[f"{before}post_attention_layernorm.weight"],
    }


def save(folder: Path, tensors: dict[str, Tensor], config: dict[str, Any], shards: int = 2, fast: bool = False) -> Path:
    """A repository as the authors publish it: shards with an index, and a tokenizer of vocabulary and merges (or `fast`)."""
    folder.mkdir()
    names = sorted(tensors)
    where = {
        name: f"model-{1 + place * shards // len(names):05d}-of-{shards:05d}.safetensors"
        for place, name in enumerate(names)
    }
    for file in sorted(set(where.values())):
        save_file({name: tensors[name] for name in names if where[name] == file}, folder / file, {"format": "pt"})
    index = {"metadata": {}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer(folder, fast)
    return folder


def tokenizer(folder: Path, fast: bool) -> None:
    """Bytes and the added tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from tokenizers.pre_tokenizers import ByteLevel

    letters = {letter: number for number, letter in enumerate(sorted(ByteLevel.alphabet()))}
    if fast:
        inner = Tokenizer(models.BPE(vocab=letters, merges=[]))
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
        inner.add_special_tokens(list(ADDED))
        inner.save(str(folder / "tokenizer.json"))
        (folder / "tokenizer_config.json").write_text('{"eos_token": "<|im_end|>", "pad_token": "</s>"}')
        return
    (folder / "vocab.json").write_text(json.dumps(letters))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    added = {token: 256 + number for number, token in enumerate(ADDED)}
    (folder / "added_tokens.json").write_text(json.dumps(added))
    decoder = {str(number): {"content": token, "special": True} for token, number in added.items()}
    facts = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {**facts, "added_tokens_decoder": decoder, "additional_special_tokens": list(ADDED[1:])}
            | {"auto_map": {"AutoTokenizer": ["code.Words", None]}, "chat_template": "{{ messages }}"}
        )
    )
