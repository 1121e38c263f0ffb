"""What a model needs of a device before it is loaded, or even fetched: bytes of weights, and of cache a token."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from effivlm.models._compressed import Compressed
from effivlm.models._hub import INDEX, missing
from effivlm.models._quantization import schemes, stated
from effivlm.models._sources import RANDOM, ModelSource, shape

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
STORED = "bfloat16"  # what a configuration without a word on it means here


@dataclass(frozen=True, slots=True)
class Needs:
    """Bytes of all weights (0: not known before they are fetched), and of the cache of one token."""

    weights: int
    cache_per_token: int

    def of(self, tokens: int) -> int:
        """Bytes of the weights and of caches of so many tokens in all."""
        return self.weights + tokens * self.cache_per_token


def needs(source: ModelSource, dtype: str, reading: str = "cpu") -> Needs:
    """Read off the configuration, and file sizes or their index; nothing is loaded.

    Compressed weights take what they are dequantised, or packed where a kernel of the device `reading` reads them.

    Raises:
        ValueError: the configuration lacks a size, or a compressed checkpoint is damaged.
    """
    if source.source.startswith(RANDOM):
        facts = shape(source.source.removeprefix(RANDOM))
        return Needs(facts["parameters"] * BYTES[dtype], facts["kv_bytes_per_token"] * BYTES[dtype] // 2)
    folder = Path(source.source)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    stored = str(config.get("dtype") or config.get("torch_dtype") or STORED)
    weights = _stored(folder) * BYTES[dtype] // BYTES.get(stored, 2)
    if (said := stated(config)) is not None:
        weights = _unpacked(source.name, folder, said, dtype, reading)
    try:
        return Needs(weights, _cache_per_token({**config, **(config.get("text_config") or {})}) * BYTES[dtype])
    except KeyError as error:
        raise ValueError(f"model {source.name!r}: the configuration of {folder} lacks {error}") from None


def _stored(folder: Path) -> int:
    """Bytes of the weight files, or what their index says of them."""
    if not missing(folder):
        return sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    index = folder / INDEX
    if not index.is_file():
        return 0
    return int(json.loads(index.read_text(encoding="utf-8")).get("metadata", {}).get("total_size", 0))


def _unpacked(name: str, folder: Path, said: Mapping[str, Any], dtype: str, reading: str) -> int:
    """Bytes of compressed weights once they are loaded; before they are fetched, as if all of them were layers' of one kind."""
    try:
        known = schemes(said)
        if missing(folder):
            bits = min((scheme.bits for scheme in known.values()), default=16)
            return _stored(folder) * 8 * BYTES[dtype] // bits
        return Compressed(folder, known).loaded_bytes(BYTES[dtype], getattr(torch, dtype), reading)
    except ValueError as error:
        raise ValueError(f"model {name!r}: {folder} is compressed, and {error}") from None


def _cache_per_token(text: dict[str, Any]) -> int:
    """Entries of keys and values that one token has in all layers."""
    heads = text["num_attention_heads"]
    head = text.get("head_dim") or text["hidden_size"] // heads
    return int(2 * text["num_hidden_layers"] * (text.get("num_key_value_heads") or heads) * head)
