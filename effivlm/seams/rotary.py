"""Rotary angles that grow with the prompt (`rope_type: dynamic`), without a question to the device inside a step.

Stock asks the device for the largest position before every forward, keeps the frequencies of the longest prompt so far, and
gives all rows of a batch those of the longest. Inside `steady` a prompt's length comes from the host, and a step takes each
token's frequencies from its own position, which is what stock does for a row alone; nothing is kept between prompts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class DynamicAngles:
    """Cosines and sines of one rotary module whose frequencies shrink beyond `limit` positions (NTK scaling).

    `length` is that of the prompt being prefilled; None in a step.

    Raises:
        ValueError: the module scales in a way that is not computed here.
    """

    def __init__(self, module: Any) -> None:
        parameters = module.config.rope_parameters
        if module.rope_type != "dynamic" or hasattr(module, "mrope_section"):
            kind = module.rope_type if isinstance(module.rope_type, str) else "of each layer"
            where = " over three-dimensional positions" if hasattr(module, "mrope_section") else ""
            raise ValueError(
                f"rope_type {kind}{where} changes its frequencies inside a forward; of these only dynamic over plain positions"
                " is supported"
            )
        self.module, self.limit = module, int(module.original_max_seq_len)
        self.theta, self.factor = parameters["rope_theta"], parameters["factor"]
        self.dim = 2 * len(module.original_inv_freq)
        self.length: int | None = None

    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """As the stock module: x [.., d] for device and type, positions [B, N] to cosines and sines [B, N, D]."""
        positions = position_ids[..., None]
        frequencies = self.module.original_inv_freq.to(x.device).float()
        if self.length is None:
            longest = positions + 1
            frequencies = torch.where(longest > self.limit, self._grown(longest, x.device), frequencies)
        elif self.length > self.limit:
            frequencies = self._grown(torch.tensor([self.length], device=x.device), x.device)
        angles = positions.float() * frequencies
        both = torch.cat((angles, angles), dim=-1)
        scaling = self.module.attention_scaling
        return (both.cos() * scaling).to(x.dtype), (both.sin() * scaling).to(x.dtype)

    def _grown(self, longest: Tensor, device: torch.device) -> Tensor:
        """Frequencies [.., D / 2] for the longest position [.., 1], in the order of operations of transformers: same bits."""
        stretched = (self.factor * longest / self.limit) - (self.factor - 1)
        base = self.theta * stretched ** (self.dim / (self.dim - 2))
        exponents = torch.arange(0, self.dim, 2, dtype=torch.int64, device=device).float() / self.dim
        return torch.reciprocal(base**exponents)


def growing(text: nn.Module) -> tuple[DynamicAngles, ...]:
    """The angles of every rotary module of a decoder that would ask the device in each forward.

    Raises:
        ValueError: as `DynamicAngles`.
    """
    return tuple(DynamicAngles(module) for module in text.modules() if _asks(getattr(module, "rope_type", "")))


def _asks(rope: object) -> bool:
    kinds = rope.values() if isinstance(rope, dict) else [rope]
    return any("dynamic" in str(kind) or kind == "longrope" for kind in kinds)


@contextmanager
def steady(angles: Sequence[DynamicAngles]) -> Iterator[None]:
    """Inside, rotary modules compute their angles without asking the device; afterwards they are as they were."""
    swapped: list[tuple[Any, str, Any]] = []
    try:
        for one in angles:
            # accelerate puts its hook's forward there, and the module's own beside it
            name = "_old_forward" if "_old_forward" in vars(one.module) else "forward"
            swapped.append((one.module, name, vars(one.module).get(name)))
            setattr(one.module, name, one.forward)
        yield
    finally:
        for module, name, own in swapped:
            if own is None:
                delattr(module, name)
            else:
                setattr(module, name, own)


@contextmanager
def prefilling(angles: Sequence[DynamicAngles], length: int) -> Iterator[None]:
    """Inside, all positions belong to one prompt whose longest position is `length` - 1."""
    for one in angles:
        one.length = length
    try:
        yield
    finally:
        for one in angles:
            one.length = None
