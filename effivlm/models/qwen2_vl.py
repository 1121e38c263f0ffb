"""Qwen2-VL (arXiv 2409.12191): any image size, four patches merged into a token, three-dimensional rotary positions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from effivlm.models._adapter import Adapter, Visual, grid
from effivlm.models._placing import Seen, gathered
from effivlm.models._tower import brought, capturing, feeding
from effivlm.records import Sample
from effivlm.seams.hooks import Tower

FRAME_TOKENS = 768
"""What a frame of a video may have at most."""


class Qwen2Vl(Adapter):
    """Qwen2-VL; kept visual tokens keep their (time, height, width) position, and the answer goes on after the dense prompt."""

    model_type: ClassVar[str] = "qwen2_vl"
    class_name: ClassVar[str] = "Qwen2VLForConditionalGeneration"
    positions_after_pruning: ClassVar[str] = "original"
    limited_by: ClassVar[str] = "pixels"
    checkpoints: ClassVar[Mapping[str, str]] = {
        "micro_qwen2_vl": "package:effivlm_micro/micro_qwen2_vl",
        "qwen2_vl_7b": "Qwen/Qwen2-VL-7B-Instruct",
    }

    def encode(self, inputs: Mapping[str, Any], looking: bool = False) -> Visual:
        config, model = self.model.config, self.model
        sources: dict[int, list[Seen]] = {}
        if "pixel_values" in inputs:
            pixels, shapes = inputs["pixel_values"], inputs["image_grid_thw"]
            sources[config.image_token_id] = self._seen(model.get_image_features, pixels, shapes, looking)
        if "pixel_values_videos" in inputs:
            pixels, shapes = inputs["pixel_values_videos"], inputs["video_grid_thw"]
            sources[config.video_token_id] = self._seen(model.get_video_features, pixels, shapes, looking)
        return gathered(inputs["input_ids"][0], sources)

    def _seen(self, run: Callable[..., Any], pixels: Tensor, shapes: Tensor, looking: bool) -> list[Seen]:
        """What is made of each image or video, in the order of their pixels."""
        vision, tower = self.model.config.vision_config, self.model.model.visual
        merge = vision.spatial_merge_size
        with self.running(), capturing(feeding(tower, -1), looking) as shown:
            made = run(pixels, shapes, return_dict=True)
        features, counts = made.pooler_output, [len(feature) for feature in made.pooler_output]
        places = [grid(int(t), int(h) // merge, int(w) // merge, self.device) for t, h, w in shapes]
        towers: Sequence[Tower | None] = [None] * len(counts)
        if looking:  # the processor lets the patches that the merger puts into one token follow each other
            means = self.ordered(torch.cat(list(shown)).unflatten(0, (-1, merge**2)).mean(1), shapes)
            towers = [brought(*pair, vision.num_heads) for pair in zip(means.split(counts), features, strict=True)]
        deep: Sequence[Tensor | None] = [None] * len(counts)
        if layers := getattr(made, "deepstack_features", None):
            deep = torch.stack(list(layers)).split(counts, 1)
        return [Seen(*one) for one in zip(features, places, towers, deep, strict=True)]

    def running(self) -> AbstractContextManager[None]:
        """What the vision tower runs in."""
        return nullcontext()

    def ordered(self, means: Tensor, shapes: Tensor) -> Tensor:
        """Maps of tokens [n, ..] in the order in which the tower's layers see them, brought into that of its features."""
        return means

    def beside(self, dynamic: bool) -> list[nn.Module]:
        # four patches a token, rotated in float32: fusing takes a tenth off the tower, where it only delays smaller ones
        return [*self.model.model.visual.blocks] if dynamic else super().beside(dynamic)

    def video_arguments(self, sample: Sample) -> dict[str, Any]:
        """The reference implementation (qwen-vl-utils) caps the pixels of a frame, alone and by its share of the whole video, and
        so do the published numbers; the hub's configuration holds the much higher cap of single images."""
        size, most = self.processor.video_processor.size, FRAME_TOKENS * self._pixels_per_token
        capped = sized(size, min(size["longest_edge"], most, self.limit or most))
        about = {"cap_pixels_per_frame": True, "size": capped}
        return {**super().video_arguments(sample), "videos_kwargs": about}

    def limiting(self, limit: int) -> dict[str, Any]:
        return {"images_kwargs": {"size": sized(self._sizing.size, limit)}} if limit else {}

    def tighter(self) -> Iterator[int]:
        limit = self.limit
        yield limit
        limit = limit or int(self._sizing.size["longest_edge"])
        while (limit := limit * 3 // 4) >= self._pixels_per_token:
            yield limit

    def tokens_of(self, sizes: Sequence[tuple[int, int]], limit: int) -> int:
        size = sized(self._sizing.size, limit) if limit else self._sizing.size
        bounds = {"min_pixels": size["shortest_edge"], "max_pixels": size["longest_edge"]}
        patches = sum(self._sizing.get_number_of_image_patches(*one, bounds) for one in sizes)
        return int(patches // self._sizing.merge_size**2)

    @property
    def _sizing(self) -> Any:
        return self.processor.image_processor

    @property
    def _pixels_per_token(self) -> int:
        return int((self._sizing.patch_size * self._sizing.merge_size) ** 2)

    def positions(self, inputs: Mapping[str, Any]) -> tuple[Tensor, int]:
        kinds = inputs.get("mm_token_type_ids")
        if kinds is None or not kinds.any():
            positions, following = super().positions(inputs)
            return positions[None].expand(3, -1, -1), following
        positions, _ = self.model.model.get_rope_index(
            inputs["input_ids"],
            mm_token_type_ids=kinds,
            image_grid_thw=inputs.get("image_grid_thw"),
            video_grid_thw=inputs.get("video_grid_thw"),
            second_per_grid_ts=inputs.get("second_per_grid_ts"),  # where frames are placed by their times
        )
        return positions, int(positions.max()) + 1

    def step_positions(self, positions: Tensor) -> Tensor:
        return positions[None].expand(3, -1, -1)


def sized(size: Mapping[str, int], most: int) -> dict[str, int]:
    """Bounds of a picture's pixels with another upper one."""
    return {"shortest_edge": min(int(size["shortest_edge"]), most), "longest_edge": most}
