"""DivPrune: tokens as different from each other as can be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from effivlm.compression.base import Selection
from effivlm.compression.per_image import PerImage, Seen
from effivlm.compression.pools import one_program
from effivlm.compression.similar import alike, closest_other, unit

SAME = 1 - 1e-6
"""Cosines above this are rounding; such tokens are one token."""


@dataclass(frozen=True, kw_only=True)
class DivPrune(PerImage):
    """Pick visual tokens one by one, each the farthest by cosine from all picked before it (arXiv 2503.02175).

    The first is the token whose nearest other token is farthest. Works on projected features; no attention is looked at.

    Differs from the paper:
    - K is rounded half up over the sample and shared among its images by size; newline markers are never picked;
    - a token is picked once, also where all that are left equal a picked one (the paper's code then repeats the first);
    - cosines above 1 - 1e-6 count as equal, so that copies of a token are ordered by place.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {}}

    def choose(self, seen: Seen, budget: int) -> Selection:
        return Selection(farthest(seen.features, budget).sort().values)


def farthest(features: Tensor, count: int) -> Tensor:
    """Numbers of `count` of the features [n, d] in the order they are picked; memory is linear in n.

    Raises:
        ValueError: a feature is NaN.
    """
    tokens = unit(features)
    if tokens.isnan().any():
        raise ValueError("features hold NaN, so no distance between tokens exists")
    if one_program(tokens) and len(tokens) > 1:
        return _farthest(tokens, count)
    nearest = closest_other(tokens).clamp_(max=SAME) if len(tokens) > 1 else tokens.new_zeros(1)
    picked = [nearest.argmin(0, keepdim=True)]
    nearest.fill_(-1)
    for _ in range(count - 1):  # nothing here waits for the device: the number of a pick stays there
        torch.maximum(nearest, (tokens @ tokens[picked[-1]][0]).clamp_(max=SAME), out=nearest)
        nearest.index_fill_(0, picked[-1], 2)
        picked.append(nearest.argmin(0, keepdim=True))
    return torch.cat(picked)


def _farthest(tokens: Tensor, count: int) -> Tensor:
    """`farthest` of unit tokens [n, d], in one kernel."""
    from effivlm.kernels import greedy

    cosines = alike(tokens)
    cosines.diagonal().fill_(-1)
    size, picks = torch.tensor([[len(tokens)], [count]], dtype=torch.int32).to(tokens.device, non_blocking=True)
    nearest = cosines.amax(1).clamp_(max=SAME)
    return greedy.farthest(cosines[None], nearest[None], size, picks, count, SAME)[0]
