"""LLaVA-OneVision (arXiv 2408.03326): SigLIP tower without a class token, tiles packed row by row with newline markers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from effivlm.models._adapter import Adapter, Visual, grid
from effivlm.models._tower import brought, capturing, feeding
from effivlm.seams.hooks import Tower

_Seen = tuple[Tensor, Tensor, Tower | None]


class LlavaOnevision(Adapter):
    """LLaVA-OneVision; one image is tiled, several images in a sample get one crop each, as in the original."""

    model_type: ClassVar[str] = "llava_onevision"
    class_name: ClassVar[str] = "LlavaOnevisionForConditionalGeneration"
    positions_after_pruning: ClassVar[str] = "compact"
    checkpoints: ClassVar[Mapping[str, str]] = {
        "micro_llava_onevision": "package:effivlm_micro/micro_llava_onevision",
        "llava_onevision_7b": "llava-hf/llava-onevision-qwen2-7b-ov-hf",
    }

    _pinpoints: Sequence[list[int]] = ()

    def encode(self, inputs: Mapping[str, Any], looking: bool = False) -> Visual:
        ids, config = inputs["input_ids"][0], self.model.config
        parts: list[tuple[int, _Seen]] = []
        if "pixel_values" in inputs:
            parts += _placed(ids == config.image_token_id, self._images(inputs, looking))
        if "pixel_values_videos" in inputs:
            parts += _placed(ids == config.video_token_id, self._videos(inputs["pixel_values_videos"], looking))
        found = [seen for _, seen in sorted(parts, key=lambda part: part[0])]
        towers = tuple(tower for *_, tower in found if tower is not None)
        return Visual(tuple(seen[0] for seen in found), tuple(seen[1] for seen in found), towers or None)

    def _images(self, inputs: Mapping[str, Any], looking: bool) -> list[_Seen]:
        """Packed features [n_i, d] and places [n_i, 3] of every image: the whole picture first, then its tiles."""
        sizes, side = inputs["image_sizes"], self._side
        with capturing(self._source, looking) as shown:
            features = self.model.get_image_features(
                inputs["pixel_values"], sizes, batch_num_images=inputs.get("batch_num_images"), return_dict=True
            ).pooler_output
        found, crops = [], iter(shown)
        for feature, size in zip(features, sizes, strict=True):
            base = grid(1, side, side, self.device)
            rest = len(feature) - len(base)
            count = 1 if rest == 1 else self._crops(size)
            rows = 0 if rest == 1 else self._tile_rows(size, count, rest)
            places = torch.cat([base, self._tile_places(rows, rest)])
            patches = list(islice(crops, count))
            tower = self._tower(self._pack(torch.stack(patches), size, 0), feature) if patches else None
            found.append((feature, places, tower))
        return found

    def _videos(self, pixels: Tensor, looking: bool) -> list[_Seen]:
        """Pooled features of every video with the one marker at its end, and their places; a block is a frame."""
        with capturing(self._source, looking) as shown:
            pooled = self.model.get_video_features(pixels, return_dict=True).pooler_output
        newline = self.model.model.image_newline.to(pooled)[None]
        side = math.ceil(self._side / 2)
        places = torch.cat([grid(pixels.shape[1], side, side, self.device), self._tile_places(0, 1)])
        features = [torch.cat([video, newline]) for video in pooled]
        if not looking:
            return [(feature, places, None) for feature in features]
        maps = self.model.model.apply_pooling(torch.stack(shown)).unflatten(0, (len(pooled), -1)).flatten(1, 2)
        maps = torch.cat([maps, maps.new_zeros(len(maps), 1, maps.shape[2])], 1)
        return [(feature, places, self._tower(one, feature)) for feature, one in zip(features, maps, strict=True)]

    def limit_pictures(self) -> None:
        """Grids of no more than `limit` tiles, for the processor that cuts them and the model that packs them."""
        side = self.model.config.vision_config.image_size
        self._pinpoints = self._pinpoints or [list(pair) for pair in self.model.config.image_grid_pinpoints]
        wanted = [pair for pair in self._pinpoints if not self.limit or pair[0] * pair[1] <= self.limit * side**2]
        smallest = min(self._pinpoints, key=lambda pair: pair[0] * pair[1])
        self.model.config.image_grid_pinpoints = self.processor.image_processor.image_grid_pinpoints = wanted or [
            smallest
        ]

    @property
    def _source(self) -> nn.Module:
        return feeding(self.model.model.vision_tower, self.model.config.vision_feature_layer)

    def _tower(self, maps: Tensor, feature: Tensor) -> Tower:
        return brought(maps, feature, self.model.config.vision_config.num_attention_heads)

    @property
    def _side(self) -> int:
        vision = self.model.config.vision_config
        return int(vision.image_size // vision.patch_size)

    def _crops(self, size: Tensor) -> int:
        """Crops of an image that is tiled: the whole picture and its tiles."""
        from transformers.models.llava_onevision.modeling_llava_onevision import image_size_to_num_patches

        config = self.model.config
        return int(image_size_to_num_patches(size, config.image_grid_pinpoints, config.vision_config.image_size))

    def _pack(self, crops: Tensor, size: Tensor, marker: float) -> Tensor:
        """Crops [crops, patches, c] of one image packed as features are [n, c], newlines filled with `marker`."""
        newline = torch.full(crops.shape[2:], marker, device=crops.device)
        packed, _ = self.model.model.pack_image_features(
            [crops], size[None], newline, vision_aspect_ratio=self.model.config.vision_aspect_ratio
        )
        return packed[0]  # type: ignore[no-any-return]

    def _tile_rows(self, size: Tensor, crops: int, count: int) -> int:
        """Rows of the packed tiles of an image, found by packing zeros with a newline of one."""
        packed = self._pack(torch.zeros(crops, self._side**2, 1, device=self.device), size, 1)
        if len(packed) != count + self._side**2:
            raise ValueError(f"{count} tile tokens where packing gives {len(packed) - self._side**2}")
        return int(packed.sum())

    def _tile_places(self, rows: int, count: int) -> Tensor:
        """Places [count, 3] of tiles packed in `rows` rows, each ended by a marker; without rows all are markers."""
        if not rows:
            return torch.full((count, 3), -1, device=self.device)
        places = grid(1, rows, count // rows, self.device)
        places[:, 0] += 1
        places[places[:, 2] == count // rows - 1] = -1
        return places


def _placed(here: Tensor, found: list[_Seen]) -> list[tuple[int, _Seen]]:
    """What was seen, with the position of its first placeholder.

    Raises:
        ValueError: features and placeholders differ in number.
    """
    positions, start, placed = here.nonzero()[:, 0].tolist(), 0, []
    if len(positions) != (total := sum(len(feature) for feature, *_ in found)):
        raise ValueError(f"{total} visual features for {len(positions)} placeholders in the prompt")
    for seen in found:
        placed.append((positions[start], seen))
        start += len(seen[0])
    return placed
