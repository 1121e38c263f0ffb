"""What the kernel of copies is asked for. Apart from it, because Triton is imported on CUDA only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor


def stretches(rows: Sequence[object]) -> list[tuple[int, int]]:
    """Where stretches of one and the same thing begin and end: copies of one prompt are written at once."""
    changes = [at for at, (before, after) in enumerate(pairwise(rows), start=1) if before is not after]
    return list(pairwise([0, *changes, len(rows)])) if rows else []


@dataclass(frozen=True, slots=True)
class Copy:
    """Every head of `rows` [H, K, ..] goes to the beginning of a stretch of its row's `spaces` entries of `pool` [E, ..];
    stretches follow each other, row by row and head by head. A row that is there many times has one space."""

    pool: Tensor
    rows: Sequence[Tensor]
    spaces: Sequence[int]
