"""Attention by kernels that take a prompt of any length as it comes.

The fastest kernel of a recent card (cuDNN's) wants a plan for every new shape, which takes the host some 50 ms. Whoever times one
shape again and again never sees that; a run whose every sample has another length, once for each method and budget, waits for
it longer than for the attention itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

ORDER = [
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.MATH,
]


@contextmanager
def any_length(device: torch.device) -> Iterator[None]:
    """Inside, attention on a GPU takes the first kernel of `ORDER` that can do it; elsewhere all is as it was."""
    if device.type != "cuda":
        yield
        return
    with sdpa_kernel(ORDER, set_priority=True):
        yield
