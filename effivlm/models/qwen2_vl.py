"""Qwen2-VL (arXiv 2409.12191): any image size, four patches merged into a token, three-dimensional rotary positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from effivlm.models._adapter import Adapter, Visual, grid
from effivlm.records import Sample


class Qwen2Vl(Adapter):
    """Qwen2-VL; kept visual tokens keep their (time, height, width) position, and the answer goes on after the dense prompt."""

    model_type: ClassVar[str] = "qwen2_vl"
    class_name: ClassVar[str] = "Qwen2VLForConditionalGeneration"
    positions_after_pruning: ClassVar[str] = "original"
    checkpoints: ClassVar[Mapping[str, str]] = {
        "micro_qwen2_vl": "package:effivlm_micro/micro_qwen2_vl",
        "qwen2_vl_7b": "Qwen/Qwen2-VL-7B-Instruct",
    }

    def encode(self, inputs: Mapping[str, Any], looking: bool = False) -> Visual:
        config, kinds = self.model.config, inputs["input_ids"][0]
        images = videos = ()
        if "pixel_values" in inputs:
            images = self.model.get_image_features(
                inputs["pixel_values"], inputs["image_grid_thw"], return_dict=True
            ).pooler_output
        if "pixel_values_videos" in inputs:
            videos = self.model.get_video_features(
                inputs["pixel_values_videos"], inputs["video_grid_thw"], return_dict=True
            ).pooler_output
        order = _order(kinds, config.image_token_id, config.video_token_id)
        grids = [inputs.get(name, ()) for name in ("image_grid_thw", "video_grid_thw")]
        encoded: list[list[Any]] = [
            list(zip(part, shape, strict=True)) for part, shape in zip((images, videos), grids, strict=True)
        ]
        sources = {config.image_token_id: iter(encoded[0]), config.video_token_id: iter(encoded[1])}
        merge = config.vision_config.spatial_merge_size
        found = [next(sources[token]) for token in order]
        places = (grid(int(t), int(h) // merge, int(w) // merge, self.device) for _, (t, h, w) in found)
        return Visual(tuple(feature for feature, _ in found), tuple(places))

    def video_arguments(self, sample: Sample) -> dict[str, Any]:
        # the reference implementation (qwen-vl-utils) caps the pixels of a frame, and so do the published numbers
        return {**super().video_arguments(sample), "cap_pixels_per_frame": True}

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
        )
        return positions, int(positions.max()) + 1

    def step_positions(self, positions: Tensor) -> Tensor:
        return positions[None].expand(3, -1, -1)


def _order(ids: Tensor, image: int, video: int) -> list[int]:
    """The placeholder token of each run, in prompt order; Qwen2-VL puts text markers between any two runs."""
    runs: list[int] = []
    previous = None
    for token in ids.tolist():
        if token in (image, video) and token != previous:
            runs.append(token)
        previous = token
    return runs
