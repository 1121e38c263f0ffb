"""Tiny random twins of all families: real classes and real processors, built from configs, loadable offline.

A family's twin is a file of its name in `twin_families`, with one function `twin(layers, heads, kv_heads)`.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from effivlm.models._torchvision import ensure_torchvision

FAMILIES = ("llava_onevision", "qwen2_vl", "internvl2_5")
"""Every test that is for models of any kind runs over these, of the paper; over all others only those that a family can break."""
NEWER = tuple(sorted({path.stem for path in (Path(__file__).parent / "twin_families").glob("*.py")} - {*FAMILIES}))
REFUSES = {"llava": ("video", "both"), "llava_next": ("video", "both"), "smolvlm": ("both",)}
"""Forms of questions that a family's class does not have."""
NEEDS = {"smolvlm": "num2words"}
"""Packages beside our own that a family's processor needs."""
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MEAN = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
TEMPLATE = (  # Qwen2-VL's own also starts with a system message; in bytes that would outweigh the picture
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}IMAGE{% elif part['type'] == 'video' %}VIDEO"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
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
    model, processor = import_module(f"twin_families.{family}").twin(layers, heads, kv_heads)
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


def tokenizer(extra: dict[str, str]) -> Any:
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


def text(tokenizer: Any, layers: int, heads: int, kv_heads: int) -> dict[str, Any]:
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


def template(image: str, video: str) -> str:
    return TEMPLATE.replace("IMAGE", image).replace("VIDEO", video)
