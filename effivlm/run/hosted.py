"""Whole numbers fetched from devices, many tensors at once: each transfer waits for its device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

Numbers = np.ndarray[Any, np.dtype[np.int64]]


def on_host(tensors: Sequence[Tensor | None]) -> list[Numbers | None]:
    """Copies of tensors of whole numbers, fetched from each device in one go: each transfer waits for the device."""
    found: list[Numbers | None] = [None] * len(tensors)
    places: dict[torch.device, list[int]] = {}
    for number, tensor in enumerate(tensors):
        if tensor is not None:
            places.setdefault(tensor.device, []).append(number)
    for numbers in places.values():
        those = [tensor for number in numbers if (tensor := tensors[number]) is not None]
        flat = torch.cat([tensor.flatten() for tensor in those]).cpu().numpy()
        ends = np.cumsum([tensor.numel() for tensor in those])
        for number, tensor, piece in zip(numbers, those, np.split(flat, ends[:-1]), strict=True):
            found[number] = piece.reshape(tensor.shape)
    return found
