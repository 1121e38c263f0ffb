"""Physical floors: what a prefill's operations and a decoding step's bytes take at the rates that this device really reaches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from effivlm.decoding.quantised import QuantizedLinear
from effivlm.models._adapter import Adapter
from effivlm.seams.meters import timed_s

LINEAR = (nn.Linear, QuantizedLinear)
TRIES = 5
SIZES = {"cuda": (8192, 1 << 29), "cpu": (1024, 1 << 26)}  # side of the matrices, bytes of the copy


@dataclass(frozen=True, slots=True)
class Rates:
    """What a device reached in the best of a few tries: bytes read and written by a copy, operations of a square product."""

    bytes_per_s: float
    flops_per_s: float


@cache
def rates(device: torch.device, dtype: torch.dtype) -> Rates:
    """Measure the device once; takes a fraction of a second."""
    side, size = SIZES[device.type]
    # a GPU multiplies ones and zeros faster than numbers, because they take less power
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    source = torch.ones(size, device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    products = [timed_s(lambda: left @ right, device)[0] for _ in range(TRIES)]
    copies = [timed_s(lambda: target.copy_(source), device)[0] for _ in range(TRIES)]
    return Rates(2 * size / min(copies), 2 * side**3 / min(products))


def decoder_flops(model: Adapter, lengths: Sequence[int]) -> float:
    """Floating-point operations of the decoder's matrices and causal attention, with `lengths[l]` entries in layer l."""
    config = model.model.config.get_text_config()
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    width: int = config.num_attention_heads * head
    weights = [
        sum(part.in_features * part.out_features for part in layer.modules() if isinstance(part, LINEAR))
        for layer in model.layers
    ]
    return sum(2.0 * count * n + 2.0 * width * n**2 for count, n in zip(weights, lengths, strict=True))


def tower_flops(model: Adapter, inputs: Mapping[str, Any]) -> float:
    """Floating-point operations of the vision tower and the projector, counted while they run; inside `model.seams()`."""
    with FlopCounterMode(display=False) as counter:
        model.encode(inputs)
    return float(counter.get_total_flops())


def step_bytes(model: Adapter, kv_bytes: int) -> int:
    """Bytes that a decoding step at batch 1 must read: the decoder's weights, the head's, and the cache."""
    parts = {id(weight): weight.nbytes for part in (*model.layers, model.head) for weight in part.parameters()}
    return sum(parts.values()) + kv_bytes
