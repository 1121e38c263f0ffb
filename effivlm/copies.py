"""Many small copies made together: on a GPU each alone takes longer to launch than to do."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor


def alike(rows: Sequence[object]) -> list[tuple[int, int]]:
    """Where stretches of one and the same thing begin and end: copies of one prompt are written at once."""
    changes = [at for at, (before, after) in enumerate(pairwise(rows), start=1) if before is not after]
    return list(pairwise([0, *changes, len(rows)])) if rows else []


class Copies:
    """Copies that were asked for, made by `make` in as few kernels as there are types of numbers."""

    def __init__(self) -> None:
        self._asked: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}

    def put(self, pool: Tensor, rows: Sequence[Tensor], spaces: Sequence[int]) -> None:
        """Write every head of `rows` [H, K, ..] to the beginning of a stretch of its row's `spaces` entries of `pool` [E, ..].

        Stretches follow each other, row by row and head by head. What does not lie in one piece, and rows that are one and the
        same, are copied here and now.
        """
        sizes: list[int] = []
        together: list[int] = []  # of the pieces, those that a head is written to
        sources: list[Tensor] = []
        at = 0
        for start, end in alike(rows):
            row, space = rows[start], spaces[start]
            heads, length = row.shape[:2]
            whole = (end - start) * heads * space
            if end - start == 1 and row.is_contiguous():
                together += range(len(sizes), len(sizes) + 2 * heads, 2)
                sizes += [length, space - length] * heads
                sources += row.unbind(0)
            else:
                target = pool[at : at + whole].view(end - start, heads, space, *pool.shape[1:])
                target[:, :, :length] = row
                sizes.append(whole)
            at += whole
        if together:
            pieces = pool[:at].split(sizes)
            targets, given = self._asked.setdefault(pool.dtype, ([], []))
            targets += [pieces[number] for number in together]
            given += sources

    def make(self) -> None:
        for targets, sources in self._asked.values():
            torch._foreach_copy_(targets, sources)
        self._asked.clear()
