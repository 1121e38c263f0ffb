"""MixKV: what the end of the prompt looks at, mixed with what is unlike the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from effivlm.compression.base import LayerView, of_all
from effivlm.compression.scored import FIRST
from effivlm.compression.similar import unit
from effivlm.methods.snapkv import SnapKv

TINY = 1e-8


@dataclass(frozen=True, kw_only=True)
class MixKv(SnapKv):
    """Mix SnapKV's scores with how unlike the mean key an entry's key is, head by head (arXiv 2510.20707, ICLR 2026).

    Importance is SnapKV's score plus the norm of the value; diversity is minus the cosine-like product of a key at length one
    with the mean of all of its head. Norms and diversity go to [0, 1] and are scaled to the mean score. A KV head whose keys have
    a mean cosine c with each other ranks by c * diversity + (1 - c) * importance.

    Differs from the paper:
    - c is that of the prompt at hand, where the authors' code reads means measured beforehand on another set;
    - as in `snapkv`: K is a share of the prompt, rounded half up, and the window shrinks with it;
    - norms that are all equal count as 0 (the authors' code divides by 0).
    """

    of: ClassVar[str] = "prompt entries"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {}}

    kernel: int = 5
    pool: str = "avg"

    def ranked(self, views: Sequence[LayerView], early: Sequence[int]) -> Tensor:
        bare = replace(self, sinks=0, visual_sinks=0, protect_text=False, head_shared=False)
        attention = SnapKv.ranked(bare, views, early)
        counted = attention < torch.inf
        sizes = counted.sum(-1, keepdim=True).clamp(min=1)
        attention = attention.masked_fill(~counted, 0)
        mean = attention.sum(-1, keepdim=True) / sizes
        unlike, norms, redundancy = of_all(views, "redundancy", lambda: facts(views))
        diverse, strong = (scaled(part, counted) for part in (unlike, norms))
        diverse, strong = (part * mean / (part.sum(-1, keepdim=True) / sizes + TINY) for part in (diverse, strong))
        mixed = redundancy * diverse + (1 - redundancy) * (attention + strong)
        if self.head_shared:
            mixed = mixed.mean(1, keepdim=True).expand_as(mixed)
        if self.guards:
            mixed = mixed.masked_fill(self.safe(views[0].visual), FIRST)
        return mixed.masked_fill(~counted, torch.inf)


def facts(views: Sequence[LayerView]) -> tuple[Tensor, Tensor, Tensor]:
    """Of all layers: how unlike the mean key every key is, and the norms of the values [L, H_kv, N], and the mean cosine of the
    keys of a head with each other [L, H_kv, 1]."""
    found = [_facts(view) for view in views]
    unlike, norms, redundancy = (torch.stack(parts) for parts in zip(*found, strict=True))
    return unlike, norms, redundancy


def _facts(view: LayerView) -> tuple[Tensor, Tensor, Tensor]:
    keys, length = unit(view.keys), view.length
    mean = keys.mean(1, keepdim=True)
    redundancy = (length * mean.square().sum(-1) - 1) / max(1, length - 1)
    return -(keys @ mean.transpose(1, 2))[..., 0], view.values.float().norm(dim=-1), redundancy


def scaled(numbers: Tensor, counted: Tensor) -> Tensor:
    """Numbers [.., N] brought to [0, 1] among those that are counted; 0 elsewhere, and where all are equal."""
    low = numbers.masked_fill(~counted, torch.inf).amin(-1, keepdim=True)
    high = numbers.masked_fill(~counted, -torch.inf).amax(-1, keepdim=True)
    return ((numbers - low) / (high - low + TINY)).masked_fill(~counted, 0)
