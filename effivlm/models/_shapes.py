"""Real shapes with random weights: `random:qwen2_vl_7b` is built on the device from a configuration that ships.

Such a model says nothing about quality; time, memory, floating-point operations and realised budgets are those of the real one.
Configurations hold the published sizes; building fails unless the number of parameters is exactly the published one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from effivlm.models._sources import shape

STD = 0.02


def build(name: str, device: str, dtype: str, seed: int = 0, **smaller: Any) -> tuple[Any, Any]:
    """A model with random weights, made on `device`, and its processor, made without a download.

    `smaller` replaces entries of the configuration's parts (`text_config={"num_hidden_layers": 2}`), for tests.

    Raises:
        ValueError: the model has another number of parameters than the published one.
    """
    import transformers

    facts = shape(name)
    config = _config(facts["config"], smaller)
    torch.manual_seed(seed)
    with torch.device(device):
        model = transformers.AutoModelForImageTextToText.from_config(
            config, dtype=getattr(torch, dtype), attn_implementation="sdpa"
        )
    _randomise(model, config.get_text_config().num_hidden_layers)
    count = sum(parameter.numel() for parameter in model.parameters())
    if not smaller and count != facts["parameters"]:
        raise ValueError(f"shape {name!r} has {count:,} parameters where {facts['parameters']:,} are published")
    model.generation_config.eos_token_id = None  # random weights would end an answer anywhere
    return model, processor(facts)


def _config(values: dict[str, Any], smaller: dict[str, Any]) -> Any:
    import transformers

    merged: dict[str, Any] = {
        key: {**value, **smaller.get(key, {})} if isinstance(value, dict) else value for key, value in values.items()
    }
    return transformers.AutoConfig.for_model(merged.pop("model_type"), **merged)


@torch.no_grad()
def _randomise(model: nn.Module, layers: int) -> None:
    """Normal weights; what adds to the residual stream is smaller by 1 / sqrt(2 L), so that no sum grows beyond bfloat16."""
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            continue
        adds = name.endswith(("o_proj.weight", "down_proj.weight"))
        parameter.normal_(0.0, STD / (2 * layers) ** 0.5 if adds else STD)


def processor(facts: dict[str, Any]) -> Any:
    """The family's processor over a byte-level tokenizer whose special tokens have the real ids.

    Its image processor is of the PIL backend, as everywhere in this suite. Text is longer than with the real vocabulary.
    """
    import transformers

    made = dict(facts["processor"])
    parts = {name: _part(facts[name]) for name in ("image_processor", "video_processor") if name in facts}
    tokenizer = _tokenizer(facts["tokens"], facts["names"], facts.get("eos", "<|im_end|>"))
    return getattr(transformers, made.pop("cls"))(tokenizer=tokenizer, **parts, **made)


def _part(values: dict[str, Any]) -> Any:
    import transformers

    given = dict(values)
    return getattr(transformers, given.pop("cls"))(**given)


def _tokenizer(tokens: dict[str, int], names: dict[str, str], eos: str) -> Any:
    import transformers
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    taken = set(tokens.values())
    free = [index for index in range(max(taken) + len(letters)) if index not in taken]
    vocabulary = dict(zip(letters, free, strict=False))
    vocabulary |= {f"<unused{index}>": index for index in free[len(letters) :] if index < max(taken)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary | tokens, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in tokens])
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=eos, pad_token=eos, extra_special_tokens=names
    )
    if wrong := [token for token, index in tokens.items() if fast.convert_tokens_to_ids(token) != index]:
        raise ValueError(f"special tokens moved to other ids: {', '.join(wrong)}")
    return fast
