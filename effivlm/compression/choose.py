"""Which entries have the highest scores: without a sort, and without waiting for the device while it has work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from effivlm.kernels.placed import has_triton

NO_ORDER = "scores hold NaN, so no entries can be chosen by them"
Doubts = list[tuple[Tensor, str]]
"""Flags on the device, each with what is wrong where it is set: the scores of a choice held NaN, say."""
_DOUBTS: ContextVar[Doubts | None] = ContextVar("effivlm_doubts", default=None)


@contextmanager
def doubting() -> Iterator[Doubts]:
    """Inside, NaN among scores is noted and not looked at, because that is to wait for the device; `refuse` looks."""
    doubts: Doubts = []
    token = _DOUBTS.set(doubts)
    try:
        yield doubts
    finally:
        _DOUBTS.reset(token)


def refuse(*doubts: Doubts) -> list[ValueError | None]:
    """What is to be raised for each of several pieces of work that noted its doubts; waits for each device once."""
    noted: dict[torch.device, list[tuple[int, Tensor, str]]] = {}
    for number, flags in enumerate(doubts):
        for flag, reason in flags:
            noted.setdefault(flag.device, []).append((number, flag, reason))
    bad = dict[int, str]()
    for those in noted.values():
        told = torch.stack([flag for _, flag, _ in those]).tolist()
        for (number, _, reason), doubt in zip(those, told, strict=True):
            if doubt:
                bad.setdefault(number, reason)
    return [ValueError(bad[number]) if number in bad else None for number in range(len(doubts))]


def best(scores: Tensor, count: int) -> Tensor:
    """Numbers of the `count` highest scores of the last dimension, ascending; ties go to the lower number.

    Raises:
        ValueError: a score is NaN, so that no order exists.
    """
    return best_of_each(scores[None], [count])[0]


def best_of_each(scores: Tensor, counts: Sequence[int]) -> list[Tensor]:
    """`best` of every score tensor [L, .., N], with a count of its own.

    Nothing is sorted: a GPU sorts long rows one after another. Entries above the count-th highest score stay, and of those
    that equal it as many as are missing; one kernel does so for all rows where Triton is there.

    Raises:
        ValueError: a score is NaN, so that no order exists; inside `doubting` that is noted instead.
    """
    doubt, doubts = scores.isnan().any(), _DOUBTS.get()
    if doubts is not None:
        doubts.append((doubt, NO_ORDER))
    elif doubt:
        raise ValueError(NO_ORDER)
    most = max(counts)
    wanted = torch.tensor(counts, dtype=torch.int32).to(scores.device, non_blocking=True)
    found = _fused(scores, wanted, most) if scores.is_cuda and has_triton() else None
    if found is None:
        found = _plain(scores, wanted, counts, most)
    return [row[..., :count] for row, count in zip(found, counts, strict=True)]


def ranks(scores: Tensor) -> Tensor:
    """The place of each score in the falling order of the last dimension; ties go to the lower number."""
    return scores.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)


def numbers_of(mask: Tensor, most: int) -> Tensor:
    """Numbers [.., most] of what is marked along the last dimension, ascending, without asking the device how many there are.

    Where fewer than `most` are marked, what stands behind the last one means nothing.
    """
    # every marked entry writes its number into its place; the others write into one behind the last
    places = torch.where(mask, mask.cumsum(-1) - 1, most)
    numbers = torch.arange(mask.shape[-1], device=mask.device).expand_as(places)
    return numbers.new_zeros(*mask.shape[:-1], most + 1).scatter_(-1, places, numbers)[..., :most]


def _fused(scores: Tensor, wanted: Tensor, most: int) -> Tensor | None:
    """All rows in one kernel; None where they are too long for it, empty, or not in float32."""
    from effivlm.kernels import choose as kernels

    if scores.dtype != torch.float32 or not 0 < scores.shape[-1] <= kernels.LONGEST:
        return None
    return kernels.highest(scores.contiguous(), wanted, most)


def _plain(scores: Tensor, wanted: Tensor, counts: Sequence[int], most: int) -> Tensor:
    lowest = torch.stack([_lowest(row, count) for row, count in zip(scores, counts, strict=True)])
    above, equal = scores > lowest, scores == lowest
    missing = wanted.view([-1] + [1] * (scores.dim() - 1)) - above.sum(-1, keepdim=True)
    return numbers_of(above | (equal & (equal.cumsum(-1) <= missing)), most)


def _lowest(scores: Tensor, count: int) -> Tensor:
    """The count-th highest score of the last dimension [.., 1]."""
    if not count:
        return torch.full_like(scores[..., :1], torch.inf)
    return scores.topk(count, dim=-1, sorted=False).values.amin(-1, keepdim=True)
