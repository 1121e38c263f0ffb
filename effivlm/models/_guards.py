"""What is looked at before a checkpoint may answer: a configuration that fits itself, and weights that are all of the model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

HARMLESS = (
    r"(.*\.)?rotary(_pos)?_emb\.(inv_freq|original_inv_freq|cos_cached|sin_cached)",  # computed from the configuration
    r"(.*\.)?(position_ids|masked_bias|attn\.bias|relative_position_index)",
    r"(.*\.)?vision_(tower|model)\.(vision_model\.)?(post_layernorm|head)\..*",  # behind the features that are used
    r"(.*\.)?(image|video)_newline_index",
    r"(.*\.)?num_batches_tracked",
)
SHOWN = 3


def foreign(unexpected: Iterable[str], config: Any) -> list[str]:
    """Tensors of a checkpoint that no part of the model takes and that are no harmless leftovers.

    Harmless are buffers that are computed, the head of a model whose head is tied to its embeddings, and what stands behind the
    features of the vision tower. More layers than the configuration has are not: one of both is wrong.
    """
    tied = any(getattr(one, "tie_word_embeddings", False) for one in (config, config.get_text_config()))
    patterns = [re.compile(pattern) for pattern in (*HARMLESS, *([r"(.*\.)?lm_head\.weight"] if tied else []))]
    return sorted(name for name in unexpected if not any(pattern.fullmatch(name) for pattern in patterns))


def unfit(config: Any) -> str:
    """Why a configuration cannot be run, in one sentence; "" where nothing is found."""
    return next(_misfits(config), "")


def _misfits(config: Any) -> Iterator[str]:
    text = config.get_text_config()
    width, heads = text.hidden_size, text.num_attention_heads
    groups = getattr(text, "num_key_value_heads", None) or heads
    if min(width, heads, groups, text.num_hidden_layers, text.vocab_size) < 1:
        yield "its text model has a size below 1"
        return
    if heads % groups:
        yield f"{heads} attention heads cannot share {groups} key-value heads"
    if not getattr(text, "head_dim", None) and width % heads:
        yield f"a width of {width} cannot be cut into {heads} heads"
    kinds = list(getattr(text, "layer_types", None) or [])
    if other := sorted(set(kinds) - {"full_attention"}):
        yield (
            f"{sum(kind in other for kind in kinds)} of its layers have {', '.join(other)}"
            f"{' (use_sliding_window)' if 'sliding_attention' in other else ''}, which is not done here: budgets and caches are"
            f" those of full attention"
        )
    if kinds and len(kinds) != text.num_hidden_layers:
        yield f"{len(kinds)} kinds of layers stand for {text.num_hidden_layers} layers"
    token = getattr(config, "image_token_id", None)
    if token is not None and not 0 <= token < text.vocab_size:
        yield f"image_token_id {token} lies outside the vocabulary of {text.vocab_size}"
    yield from _positions(text, getattr(text, "head_dim", None) or width // heads)
    yield from _tower(config, width)


def _positions(text: Any, head: int) -> Iterator[str]:
    rope = getattr(text, "rope_parameters", None) or {}
    section = rope.get("mrope_section") if isinstance(rope, dict) else None
    if section and sum(section) * 2 != head:
        yield f"rotary sections {list(section)} make {2 * sum(section)} channels of a head of {head}"
    if head % 2:
        yield f"a head of {head} channels cannot be rotated in pairs"


def _tower(config: Any, width: int) -> Iterator[str]:
    vision = config.vision_config
    wide = getattr(vision, "embed_dim", None) or vision.hidden_size
    heads = getattr(vision, "num_heads", None) or vision.num_attention_heads
    if wide % heads:
        yield f"a vision tower of width {wide} cannot be cut into {heads} heads"
    if getattr(vision, "embed_dim", None) and vision.hidden_size != width:
        yield f"its vision tower gives {vision.hidden_size} channels to a text model of {width}"
    if (made := getattr(vision, "out_hidden_size", None)) and made != width:
        yield f"its vision tower gives {made} channels to a text model of {width}"
    image, patch = _side(getattr(vision, "image_size", None)), _side(getattr(vision, "patch_size", None))
    if not image or not patch:
        return
    if image < patch:
        yield f"patches of {patch} pixels do not fit a tile of {image}"
    made, ratio = getattr(config, "image_seq_length", None), getattr(config, "downsample_ratio", None)
    if made and ratio and made != int((image // patch) ** 2 * ratio**2):
        yield f"image_seq_length {made}, but a tile makes {int((image // patch) ** 2 * ratio**2)} tokens"


def _side(size: Any) -> int:
    return int(size[0] if isinstance(size, list | tuple) else size or 0)


def disagreeing(config: Any, processor: Any) -> str:
    """Where a checkpoint's processor makes something else than its configuration reads, in one sentence; "" where it does not."""
    vision, images = config.vision_config, processor.image_processor
    pairs = {
        "image_token_id": (processor.image_token_id, config.image_token_id),
        "patch_size": (getattr(images, "patch_size", None), _side(getattr(vision, "patch_size", None))),
        "merge_size": (getattr(images, "merge_size", None), getattr(vision, "spatial_merge_size", None)),
        "image_seq_length": (getattr(processor, "image_seq_length", None), getattr(config, "image_seq_length", None)),
        "size": (_height(images), _side(getattr(vision, "image_size", None)) or None),
        "image_grid_pinpoints": (
            _pairs(getattr(images, "image_grid_pinpoints", None)),
            _pairs(getattr(config, "image_grid_pinpoints", None)),
        ),
    }
    for name, (made, read) in pairs.items():
        if made is not None and read is not None and made != read:
            return f"its processor has {name} {_short(made)} where its configuration has {_short(read)}"
    return ""


def _height(images: Any) -> int | None:
    size: Any = getattr(images, "size", None)
    height = size.get("height") if isinstance(size, dict) else getattr(size, "height", None)
    return None if height is None else int(height)


def _pairs(values: Any) -> list[tuple[int, ...]] | None:
    return None if values is None else sorted(tuple(pair) for pair in values)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) < 60 else f"{text[:60]}..."


def told(error: Exception) -> str:
    """The first line of what a library said."""
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def few(names: list[str]) -> str:
    """The first of many names."""
    return f"{len(names)} ({', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''})"
