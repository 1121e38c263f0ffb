"""Plain down-sampling: fewer pixels, or features averaged over larger cells."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from PIL.Image import Image, Resampling
from torch import Tensor

from effivlm.compression.base import ImagePart, ImageView, Method, Part, Selection, VisualPart
from effivlm.compression.budget import apportion
from effivlm.compression.places import grids_of
from effivlm.records import Unsupported

STEPS = 12
SMALLEST = 8  # pixels of a shorter side; below that processors mistake pixels for channels


@dataclass(frozen=True, kw_only=True)
class Downsample(Method):
    """Show the model less of the picture instead of choosing tokens: the control of VTC-Bench (arXiv 2510.07143).

    Preset `paper` resizes the images (bicubic) to the largest size whose tokens fit the budget; families that cut an image
    into fixed crops cannot go below a few crops and are reported as unsupported there; sizes come in steps, so it may keep
    fewer tokens than asked, never more. Preset `pooled` (the default, exact on
    every family) averages neighbouring visual features; each mean stands at the place of its cell's middle token.

    Differs from the paper: the size follows from the budget instead of an integer factor; no JPEG round trip.
    """

    of: ClassVar[str] = "visual tokens"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {"mode": "image"}, "pooled": {"mode": "feature"}}
    default_preset: ClassVar[str] = "pooled"

    mode: str = "image"

    def seam_parts(self) -> tuple[Part, ...]:
        parts = {"image": _Resized, "feature": _Pooled}
        if self.mode not in parts:
            raise ValueError(f"mode {self.mode!r} is not one of {', '.join(parts)}")
        return (parts[self.mode](keep=self.keep, seed=self.seed),)


@dataclass(frozen=True, kw_only=True)
class _Resized(ImagePart):
    def shrink(self, images: Sequence[Image], count: Callable[[Sequence[Image]], int]) -> list[Image]:
        budget = self.keep.of(count(images))
        low, high = min(1.0, SMALLEST / min(min(image.size) for image in images)), 1.0
        if (floor := count(_scaled(images, low))) > budget:
            raise Unsupported(f"the smallest image still makes {floor} visual tokens; the budget allows {budget}")
        for _ in range(STEPS):  # token counts are a staircase of the scale, so halving finds its step
            middle = (low + high) / 2
            low, high = (middle, high) if count(_scaled(images, middle)) <= budget else (low, middle)
        return _scaled(images, low)


def _scaled(images: Sequence[Image], scale: float) -> list[Image]:
    return [
        image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), Resampling.BICUBIC)
        for image in images
    ]


@dataclass(frozen=True, kw_only=True)
class _Pooled(VisualPart):
    def select(self, views: Sequence[ImageView], sample_id: str) -> list[Selection]:
        return [_pool(view.features, view.places, share) for view, share in zip(views, self.shares(views), strict=True)]


def _pool(features: Tensor, places: Tensor, budget: int) -> Selection:
    """Average one image's features [n, d] over `budget` cells; newline markers go."""
    blocks = grids_of(places)
    shares = apportion(
        [len(block) for block in blocks], budget, int(budget >= len(blocks)), [len(block) for block in blocks]
    )
    cell = torch.full_like(places[:, 0], -1)
    start = 0
    for block, share in zip(blocks, shares, strict=True):
        if share:
            cell[block] = start + _cells(places[block, 1], places[block, 2], share)
            start += share
    inside = cell >= 0
    order = cell[inside]
    sums = features.new_zeros(budget, features.shape[1], dtype=torch.float32).index_add_(
        0, order, features[inside].float()
    )
    counts = torch.bincount(order, minlength=budget)
    means = (sums / counts[:, None]).to(features.dtype)
    by_cell = inside.nonzero()[:, 0][order.sort(stable=True).indices]
    middle = by_cell[counts.cumsum(0) - counts + counts // 2]
    ascending = middle.sort()
    return Selection(ascending.values, means[ascending.indices])


def _cells(row: Tensor, column: Tensor, count: int) -> Tensor:
    """Cell number [n] of every place of a full grid: `count` cells, none empty, as square as rows and columns allow."""
    rows, columns = int(row.max()) + 1, int(column.max()) + 1
    lowest = math.ceil(count / columns)
    bands = min(max(round(math.sqrt(count * rows / columns)), lowest, 1), rows, count)
    widths = apportion([1] * bands, count, low=1, high=columns)
    first = torch.tensor([sum(widths[:band]) for band in range(bands)], device=row.device)
    band = row * bands // rows
    return first[band] + column * torch.tensor(widths, device=row.device)[band] // columns
