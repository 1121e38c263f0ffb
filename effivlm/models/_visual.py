"""What a sample becomes on its way into the decoder: encoded images with a place for each token, and the prompt."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from effivlm.seams.hooks import Tower


@dataclass(frozen=True, slots=True)
class Visual:
    """Encoded images of one sample, in prompt order.

    features [n_i, d] per image; places [n_i, 3] per image: (block, row, column) of each token, where a block is a tile or a
    frame, row and column count in the grid that tokens run over row by row (tiles packed side by side share one), and -1 marks
    tokens that show no part of the image (newline markers); towers per image, for who looks at the tower; deep [L, n_i, d] per
    image, where decoder layers 0 to L - 1 are followed by features of their own.
    """

    features: tuple[Tensor, ...]
    places: tuple[Tensor, ...]
    towers: tuple[Tower, ...] | None = None
    deep: tuple[Tensor, ...] | None = None

    @property
    def counts(self) -> list[int]:
        return [len(part) for part in self.features]

    def to(self, device: torch.device) -> Visual:
        """The same on one device: the tower may lie on another one than the embeddings."""
        features, places = (tuple(part.to(device) for part in parts) for parts in (self.features, self.places))
        towers = self.towers and tuple(tower.to(device) for tower in self.towers)
        return Visual(features, places, towers, self.deep and tuple(part.to(device) for part in self.deep))


@dataclass(frozen=True)
class Prompt:
    """What enters the decoder: embeddings [1, N, d], positions [.., 1, N], the next position, and which entries are visual.

    `image` [N] holds the number of the image (or video) an entry belongs to, -1 for text. `deep` [L, N, d] is added to what
    leaves decoder layers 0 to L - 1, zeros for text; a merged entry has that of its anchor, the one whose place it keeps.
    """

    embeds: Tensor
    positions: Tensor
    next_position: int
    image: Tensor
    deep: Tensor | None = None

    @property
    def length(self) -> int:
        return self.embeds.shape[1]

    @property
    def visual(self) -> Tensor:
        return self.image >= 0

    @cached_property
    def marks(self) -> Tensor:
        """`visual` on the host, fetched once: to ask there where the last one is waits for no device."""
        return self.visual.cpu()

    @cached_property
    def visual_tokens(self) -> int:
        """How many entries are visual."""
        return int(self.marks.sum())

    @property
    def question(self) -> Tensor:
        """Embeddings [T, d] of the text that follows the last image; of all text where none follows."""
        last = self.marks.nonzero()[-1:, 0]
        after = torch.arange(self.length) > last
        there = (after if after.any() else ~self.marks).nonzero()[:, 0]
        return self.embeds[0, there.to(self.embeds.device, non_blocking=True)]


def grid(blocks: int, rows: int, columns: int, device: torch.device) -> Tensor:
    """Places [blocks * rows * columns, 3] of tokens that run column by column, row by row, block by block."""
    return torch.cartesian_prod(*(torch.arange(size, device=device) for size in (blocks, rows, columns))).reshape(-1, 3)
