"""LLaVA-OneVision (arXiv 2408.03326): SigLIP tower without a class token, tiles packed row by row with newline markers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from effivlm.models._adapter import Adapter, Visual, grid


class LlavaOnevision(Adapter):
    """LLaVA-OneVision; one image is tiled, several images in a sample get one crop each, as in the original."""

    model_type: ClassVar[str] = "llava_onevision"
    class_name: ClassVar[str] = "LlavaOnevisionForConditionalGeneration"
    positions_after_pruning: ClassVar[str] = "compact"
    checkpoints: ClassVar[Mapping[str, str]] = {
        "micro_llava_onevision": "package:effivlm_micro/micro_llava_onevision",
        "llava_onevision_7b": "llava-hf/llava-onevision-qwen2-7b-ov-hf",
    }

    def encode(self, inputs: Mapping[str, Any], looking: bool = False) -> Visual:
        ids, config = inputs["input_ids"][0], self.model.config
        parts: list[tuple[int, Tensor, Tensor]] = []
        if "pixel_values" in inputs:
            features, places = self._images(inputs)
            parts += _placed(ids == config.image_token_id, features, places)
        if "pixel_values_videos" in inputs:
            features, places = self._videos(inputs["pixel_values_videos"])
            parts += _placed(ids == config.video_token_id, features, places)
        parts.sort(key=lambda part: part[0])
        return Visual(tuple(part[1] for part in parts), tuple(part[2] for part in parts))

    def _images(self, inputs: Mapping[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
        """Packed features [n_i, d] and places [n_i, 3] of every image: the whole picture first, then its tiles."""
        sizes, side = inputs["image_sizes"], self._side
        features = self.model.get_image_features(
            inputs["pixel_values"], sizes, batch_num_images=inputs.get("batch_num_images"), return_dict=True
        ).pooler_output
        places = []
        for feature, size in zip(features, sizes, strict=True):
            base = grid(1, side, side, self.device)
            rest = len(feature) - len(base)
            rows = 0 if rest == 1 else self._tile_rows(size, rest)
            places.append(torch.cat([base, self._tile_places(rows, rest)]))
        return list(features), places

    def _videos(self, pixels: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Pooled features of every video with the one marker at its end, and their places; a block is a frame."""
        pooled = self.model.get_video_features(pixels, return_dict=True).pooler_output
        newline = self.model.model.image_newline.to(pooled)[None]
        side = math.ceil(self._side / 2)
        places = torch.cat([grid(pixels.shape[1], side, side, self.device), self._tile_places(0, 1)])
        return [torch.cat([video, newline]) for video in pooled], [places] * len(pooled)

    @property
    def _side(self) -> int:
        vision = self.model.config.vision_config
        return int(vision.image_size // vision.patch_size)

    def _tile_rows(self, size: Tensor, count: int) -> int:
        """Rows of the packed tiles of an image, found by packing zeros with a newline of one."""
        from transformers.models.llava_onevision.modeling_llava_onevision import image_size_to_num_patches

        config = self.model.config
        crops = image_size_to_num_patches(size, config.image_grid_pinpoints, config.vision_config.image_size)
        empty = torch.zeros(crops, self._side**2, 1, device=self.device)
        packed, _ = self.model.model.pack_image_features([empty], size[None], torch.ones(1, device=self.device))
        if len(packed[0]) != count + self._side**2:
            raise ValueError(f"{count} tile tokens where packing gives {len(packed[0]) - self._side**2}")
        return int(packed[0].sum())

    def _tile_places(self, rows: int, count: int) -> Tensor:
        """Places [count, 3] of tiles packed in `rows` rows, each ended by a marker; without rows all are markers."""
        if not rows:
            return torch.full((count, 3), -1, device=self.device)
        places = grid(1, rows, count // rows, self.device)
        places[:, 0] += 1
        places[places[:, 2] == count // rows - 1] = -1
        return places


def _placed(here: Tensor, features: list[Tensor], places: list[Tensor]) -> list[tuple[int, Tensor, Tensor]]:
    """Features and places with the position of their first placeholder.

    Raises:
        ValueError: features and placeholders differ in number.
    """
    positions, start, found = here.nonzero()[:, 0].tolist(), 0, []
    if len(positions) != (total := sum(len(feature) for feature in features)):
        raise ValueError(f"{total} visual features for {len(positions)} placeholders in the prompt")
    for feature, place in zip(features, places, strict=True):
        found.append((positions[start], feature, place))
        start += len(feature)
    return found
