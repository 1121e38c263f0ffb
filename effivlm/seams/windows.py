"""Attention inside windows of a packed sequence: all windows of one length in one call.

Transformers calls attention once a window. A page of a document has hundreds of windows, almost all of one length, so that a
tower would launch thousands of kernels of almost no work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from effivlm.seams.hooked import hooked

Heads = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Pack:
    """Windows of a sequence: their `lengths` in order, and for each length that occurs the places [w, length] of its windows."""

    lengths: tuple[int, ...]
    places: tuple[Tensor, ...]

    @classmethod
    def of(cls, ends: Tensor) -> Pack:
        """From where windows begin and end, [0, .., N]."""
        lengths = (ends[1:] - ends[:-1]).tolist()
        starts = ends[:-1].tolist()
        places = []
        for length in dict.fromkeys(lengths):
            those = torch.tensor([start for start, one in zip(starts, lengths, strict=True) if one == length])
            places.append((those[:, None] + torch.arange(length)).to(ends.device))
        return cls(tuple(lengths), tuple(places))

    def attend(self, one: Callable[..., tuple[Tensor, None]], heads: Heads, apart: bool = False) -> Tensor:
        """Attention [1, N, H, D] of query, key and value [1, H, N, D] inside each window, `one` call for all of a length.

        `apart` makes one call a window, in their order, for somebody who watches.
        """
        if apart:
            pieces = zip(*(part.split(self.lengths, 2) for part in heads), strict=True)
            return torch.cat([one(*piece)[0] for piece in pieces], 1)
        if len(self.lengths) == 1:
            return one(*heads)[0]
        query = heads[0]
        output = query.new_empty(1, query.shape[2], query.shape[1], heads[2].shape[3])
        for places in self.places:
            output[0, places] = one(*(part[0, :, places].transpose(0, 1).contiguous() for part in heads))[0]
        return output


class _Packs(dict[nn.Module, Pack]):
    """By attention module, the windows of the call that it is in."""


_PACKS: ContextVar[_Packs | None] = ContextVar("effivlm_packs", default=None)


def packed(module: nn.Module) -> Pack | None:
    """The windows of the call that a module is in, once: what is asked for them is answered by calls without any."""
    packs = _PACKS.get()
    return packs.pop(module, None) if packs else None


@contextmanager
def joining(attentions: Sequence[nn.Module]) -> Iterator[None]:
    """Inside, each of these modules makes one call a length of windows; they take the ends of their windows as `cu_seqlens`.

    Raises:
        RuntimeError: on a clean exit, when a module attended to the whole sequence, because it did so outside `seams`.
    """
    packs, known = _Packs(), dict[int, tuple[Tensor, Pack, Tensor]]()

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        ends = kwargs["cu_seqlens"]
        if id(ends) not in known:  # one tensor for all layers of a kind; held, so that its id stays its own
            known[id(ends)] = ends, Pack.of(ends), ends[[0, -1]]
        _, packs[module], whole = known[id(ends)]
        return args, {**kwargs, "cu_seqlens": whole}

    token = _PACKS.set(packs)
    try:
        with hooked(module.register_forward_pre_hook(enter, with_kwargs=True) for module in attentions):
            yield
    finally:
        _PACKS.reset(token)
    if packs:
        raise RuntimeError(f"{len(packs)} attention modules never reached the wrapper, so their windows were left out")
