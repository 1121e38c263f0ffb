"""Visual methods that choose among the frames of a video."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from effivlm.compression.base import ImageView, Selection, VisualPart
from effivlm.compression.budget import apportion
from effivlm.compression.places import grids_of


@dataclass(frozen=True, slots=True)
class Clip:
    """T frames of n tokens each: features [T, n, d], and where asked the attention that tokens got in the tower [T, n]."""

    features: Tensor
    received: Tensor | None = None

    @property
    def attention(self) -> Tensor:
        """What the tower showed.

        Raises:
            ValueError: nobody looked at the tower, or it showed NaN.
        """
        if self.received is None:
            raise ValueError(
                "this method needs what the vision tower shows, but the images were encoded without looking"
            )
        if self.received.isnan().any():
            raise ValueError("attention in the vision tower holds NaN, so no tokens can be chosen by it")
        return self.received


@dataclass(frozen=True, kw_only=True)
class PerClip(VisualPart):
    """K of the sample is shared among its clips by size; newline markers are never chosen.

    A frame is a grid of tokens, and frames of one shape that follow each other in the prompt are a clip: families hand a video
    over as one image with many frames or as many images with one. So a still picture is a clip of one frame, and tiles and
    pictures of one shape side by side are looked at as frames are.
    """

    @abstractmethod
    def choose(self, clip: Clip, budget: int) -> Selection:
        """`budget` of the tokens of a clip, numbered frame after frame; 0 < budget <= T * n."""

    def select(self, views: Sequence[ImageView], sample_id: str) -> list[Selection]:
        clips = clips_of(views)
        sizes = [sum(len(numbers) for _, numbers in clip) for clip in clips]
        budget = min(self.keep.of(sum(len(view.features) for view in views)), sum(sizes))
        shares = apportion(sizes, budget, int(budget >= len(sizes)), sizes)
        found: list[list[Selection]] = [[] for _ in views]
        for clip, share in zip(clips, shares, strict=True):
            if share:
                self._placed(views, clip, self.choose(_shown(views, clip), share), found)
        return [_joined(view, parts) for view, parts in zip(views, found, strict=True)]

    def _placed(
        self,
        views: Sequence[ImageView],
        clip: Sequence[tuple[int, Tensor]],
        chosen: Selection,
        found: list[list[Selection]],
    ) -> None:
        """Put what was chosen of a clip to the image of each frame."""
        size = len(clip[0][1])
        edges = torch.arange(len(clip) + 1, device=chosen.kept.device) * size
        ends = torch.searchsorted(chosen.kept, edges).tolist()
        for number, (image, numbers) in enumerate(clip):
            part = slice(ends[number], ends[number + 1])
            features = None if chosen.features is None else chosen.features[part]
            found[image].append(Selection(numbers[chosen.kept[part] - number * size], features))


def clips_of(views: Sequence[ImageView]) -> list[list[tuple[int, Tensor]]]:
    """Clips of a sample, each as its frames: the number of the image, and the numbers of the frame's tokens."""
    clips: list[list[tuple[int, Tensor]]] = []
    last: tuple[int, ...] = ()
    for image, view in enumerate(views):
        grids = grids_of(view.places)
        corners = torch.stack([view.places[grid, 1:].amax(0) for grid in grids]).tolist() if len(view.real) else []
        for grid, corner in zip(grids, corners, strict=False):
            shape = (len(grid), *corner)
            if shape != last:
                clips.append([])
            clips[-1].append((image, grid))
            last = shape
    return clips


def _shown(views: Sequence[ImageView], clip: Sequence[tuple[int, Tensor]]) -> Clip:
    features = torch.stack([views[image].features[numbers] for image, numbers in clip])
    towers = [(tower.received, numbers) for image, numbers in clip if (tower := views[image].tower)]
    received = torch.stack([received[numbers] for received, numbers in towers]) if towers else None
    return Clip(features, received)


def _joined(view: ImageView, parts: Sequence[Selection]) -> Selection:
    """The parts of an image as one selection; frames follow each other, so numbers ascend."""
    if not parts:
        return Selection(view.real[:0])
    kept = torch.cat([part.kept for part in parts])
    if all(part.features is None for part in parts):
        return Selection(kept)
    made = [view.features[part.kept] if part.features is None else part.features for part in parts]
    return Selection(kept, torch.cat(made))
