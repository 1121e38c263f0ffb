"""Weights of a linear layer as small numbers and scales: packed, joined, and made whole again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

WORD = 32
"""Bits of a word that codes are packed in."""


def packed(values: Tensor, bits: int) -> Tensor:
    """Values [.., K] from 0 to 2^bits - 1 in words (int32) [.., K * bits / 32], lowest bits first; `bits` divides 32."""
    each = WORD // bits
    shifts = bits * torch.arange(each, device=values.device)
    words: Tensor = (values.unflatten(-1, (-1, each)).to(torch.int64) << shifts).sum(-1)
    return words.to(torch.int32)  # the highest bit becomes the sign


def unpacked(words: Tensor, bits: int, count: int) -> Tensor:
    """The `count` values [.., count] (uint8) that a stream of bits in words [.., W] holds, lowest first; a value may begin in one
    word and end in the next."""
    first = bits * torch.arange(count, device=words.device)
    word, place = first // WORD, first % WORD
    wide = torch.nn.functional.pad(words.to(torch.int64) & 0xFFFFFFFF, (0, 1))
    found = (wide[..., word] >> place) | (wide[..., word + 1] << (WORD - place))
    return (found & ((1 << bits) - 1)).to(torch.uint8)


@dataclass(frozen=True, slots=True)
class Packed:
    """Weights [N, K] as a kernel can read them.

    `codes` are e4m3 [N, K], or 4 bits [N, K / 8] in words along the inputs; `scale` is [N, K / group], one column where `group`
    is 0; `zero` [N, K / group] (uint8) is the code of zero, 8 where it is None.
    """

    codes: Tensor
    scale: Tensor
    zero: Tensor | None = None
    group: int = 0

    @property
    def four(self) -> bool:
        """Whether these are 4 bits, and not e4m3."""
        return self.codes.dtype == torch.int32

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs N and inputs K."""
        outputs, width = self.codes.shape
        return outputs, width * 8 if self.four else width

    @property
    def nbytes(self) -> int:
        """Bytes of codes, scales and zeros, these packed as the codes are."""
        zero = 0 if self.zero is None else self.zero.numel() // 2
        return self.codes.nbytes + self.scale.nbytes + zero

    @property
    def form(self) -> tuple[object, ...]:
        """What must be the same in weights that are joined."""
        return self.codes.dtype, self.shape[1], self.group, self.scale.shape[1], self.zero is None, self.codes.device

    def dense(self, dtype: torch.dtype) -> Tensor:
        """The weights [N, K], rounded once."""
        if not self.four:
            return (self.codes.float() * self.scale.float()).to(dtype)
        values: Tensor = unpacked(self.codes, 4, self.shape[1]).unflatten(1, (-1, self.group)).float()
        zero = 8.0 if self.zero is None else self.zero.float()[..., None]
        return ((values - zero) * self.scale.float()[..., None]).flatten(1).to(dtype)


def together(parts: Sequence[Packed]) -> Packed:
    """The weights of several layers of one input and form, above each other."""
    zeros = [part.zero for part in parts if part.zero is not None]
    return Packed(
        torch.cat([part.codes for part in parts]),
        torch.cat([part.scale for part in parts]),
        torch.cat(zeros) if zeros else None,
        parts[0].group,
    )
