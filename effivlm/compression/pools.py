"""Pools of tokens side by side: what a few large kernels do of all tiles and frames of a sample at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from effivlm.compression.choose import best_of_each
from effivlm.compression.similar import MOST
from effivlm.kernels.placed import has_triton
from effivlm.seams.hooks import Tower

UNSEEN = "this method needs what the vision tower shows, but the images were encoded without looking"
UNORDERED = "attention in the vision tower holds NaN, so no tokens can be chosen by it"


def checked(tower: Tower | None) -> Tower:
    """What a tower showed.

    Raises:
        ValueError: nobody looked at the tower, or it showed NaN.
    """
    if tower is None:
        raise ValueError(UNSEEN)
    if torch.stack([tower.received.isnan().any(), tower.single.isnan().any()]).any():
        raise ValueError(UNORDERED)
    return tower


@dataclass(frozen=True, slots=True)
class Seen:
    """The n tokens that compete with each other, all of an image or of one tile or frame: features [n, d], what the tower
    showed of them, and what the method found of each when it saw the whole image [n]."""

    features: Tensor
    tower: Tower | None
    found: Tensor | None = None

    @property
    def shown(self) -> Tower:
        """What the tower showed, `checked`."""
        return checked(self.tower)


@dataclass(frozen=True, slots=True)
class Pools:
    """All tokens of a sample, and T pools of them.

    tokens: those of the sample, n of them; numbers [T, N]: which of these each pool holds, ascending, filled up to the longest
    pool with token 0; sizes: how many each holds.
    """

    tokens: Seen
    numbers: Tensor
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, tokens: Seen, pools: Sequence[Tensor]) -> Pools:
        return cls(tokens, pad_sequence(list(pools), batch_first=True), tuple(len(pool) for pool in pools))

    @classmethod
    def alone(cls, tokens: Seen) -> Pools:
        """All tokens as one pool."""
        return cls.of(tokens, [torch.arange(len(tokens.features), device=tokens.features.device)])

    @property
    def there(self) -> Tensor:
        """Which numbers are those of tokens [T, N]."""
        return self.below(self.sizes, self.width)

    @property
    def width(self) -> int:
        return self.numbers.shape[1]

    def tensor(self, whole: Sequence[int]) -> Tensor:
        """Whole numbers on the device of the tokens, without waiting for it."""
        return torch.tensor(whole, dtype=torch.int32).to(self.numbers.device, non_blocking=True)

    def below(self, counts: Sequence[int], most: int) -> Tensor:
        """Which of `most` places are among the first counts[t] of pool t [T, most]."""
        return torch.arange(most, device=self.numbers.device) < self.tensor(counts)[:, None]

    def padded(self, values: Tensor, fill: float) -> Tensor:
        """Values [n] of the tokens, pool by pool [T, N]."""
        return values[self.numbers].masked_fill(~self.there, fill)

    def each(self) -> Iterator[tuple[Tensor, Seen]]:
        """Every pool by itself: numbers of its tokens [n_t], and the tokens."""
        tower, found = self.tokens.tower, self.tokens.found
        for row, size in zip(self.numbers, self.sizes, strict=True):
            pool = row[:size]
            own = tower and Tower(tower.received[pool], tower.single[pool], tower.keys[pool])
            yield pool, Seen(self.tokens.features[pool], own, None if found is None else found[pool])

    def taken(self, places: Tensor, counts: Sequence[int]) -> Tensor:
        """Numbers of the tokens at the first counts[t] `places` [T, K] of each pool, pool after pool."""
        return firsts(self.numbers.gather(1, places), counts)


def firsts(rows: Tensor, counts: Sequence[int]) -> Tensor:
    """The first counts[t] of each row [T, K, ..], row after row."""
    most = rows.shape[1]
    if all(count == most for count in counts):
        return rows.flatten(0, 1)
    places = torch.cat([torch.arange(row * most, row * most + count) for row, count in enumerate(counts)])
    return rows.flatten(0, 1)[places.to(rows.device, non_blocking=True)]


def marked(scores: Tensor, counts: Sequence[int]) -> Tensor:
    """Which are the counts[t] highest of each row of scores [T, N]; ties go to the lower number."""
    width = scores.shape[1]
    return mask_of(pad_sequence(best_of_each(scores, counts), batch_first=True, padding_value=width), width)


def mask_of(places: Tensor, width: int) -> Tensor:
    """A mask [T, width] of the `places` [T, K] of each row; one that is `width` marks nothing."""
    mask = torch.zeros(len(places), width + 1, dtype=torch.bool, device=places.device)
    return mask.scatter_(1, places, True)[:, :width]


def one_program(tokens: Tensor) -> bool:
    """Whether a kernel picks one after another of all similarities of tokens [n, d]."""
    return tokens.is_cuda and len(tokens) ** 2 <= MOST and has_triton()


def fused(pools: Pools) -> bool:
    """Whether a kernel picks one after another in all pools at once."""
    return pools.numbers.is_cuda and pools.width**2 <= MOST and has_triton()


def parts_of(pools: Pools, budgets: Sequence[int]) -> Iterator[tuple[Pools, Sequence[int]]]:
    """The pools and their budgets in as few parts as may be held at once."""
    step = max(1, MOST // pools.width**2)
    for start in range(0, len(budgets), step):
        part = slice(start, start + step)
        yield Pools(pools.tokens, pools.numbers[part], pools.sizes[part]), budgets[part]
