"""LLaVA-OneVision (arXiv 2408.03326): SigLIP tower without a class token, tiles packed row by row with newline markers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from effivlm.models._adapter import Adapter, Visual, grid
from effivlm.models._placing import Seen, gathered
from effivlm.models._tower import brought, capturing, feeding
from effivlm.seams.hooks import Tower


class LlavaOnevision(Adapter):
    """LLaVA-OneVision; one image is tiled, several images in a sample get one crop each, as in the original."""

    model_type: ClassVar[str] = "llava_onevision"
    class_name: ClassVar[str] = "LlavaOnevisionForConditionalGeneration"
    positions_after_pruning: ClassVar[str] = "compact"
    checkpoints: ClassVar[Mapping[str, str]] = {
        "micro_llava_onevision": "package:effivlm_micro/micro_llava_onevision",
        "llava_onevision_7b": "llava-hf/llava-onevision-qwen2-7b-ov-hf",
    }

    class_token: ClassVar[bool] = False

    _pinpoints: Sequence[list[int]] = ()

    def encode(self, inputs: Mapping[str, Any], looking: bool = False) -> Visual:
        config, sources = self.model.config, dict[int, list[Seen]]()
        if "pixel_values" in inputs:
            sources[config.image_token_id] = self._images(inputs, looking)
        if "pixel_values_videos" in inputs:
            sources[config.video_token_id] = self._videos(inputs["pixel_values_videos"], looking)
        return gathered(inputs["input_ids"][0], sources)

    def _images(self, inputs: Mapping[str, Any], looking: bool) -> list[Seen]:
        """Packed features [n_i, d] and places [n_i, 3] of every image: the whole picture first, then its tiles."""
        sizes = inputs["image_sizes"]
        with capturing(self._source, looking, self.class_token) as shown:
            features = self.image_features(inputs)
        found, crops = [], iter(shown)
        for feature, size in zip(features, sizes, strict=True):
            count = 1 if len(feature) == self._side**2 + 1 else self._crops(size)
            patches = list(islice(crops, count))
            tower = self._tower(self.packed(torch.stack(patches), size), feature) if patches else None
            found.append(Seen(feature, self._places(size, count, len(feature)), tower))
        return found

    def image_features(self, inputs: Mapping[str, Any]) -> Sequence[Tensor]:
        """Packed features [n_i, d] of every image."""
        given = inputs["pixel_values"], inputs["image_sizes"]
        found: Sequence[Tensor] = self.model.get_image_features(
            *given, batch_num_images=inputs.get("batch_num_images"), return_dict=True
        ).pooler_output
        return found

    def packed(self, crops: Tensor, size: Tensor) -> Tensor:
        """Crops [crops, patches, c] of one image packed as features are [n, c], with zeros for newlines."""
        newline, ratio = crops.new_zeros(crops.shape[2:]), self.model.config.vision_aspect_ratio
        found: Sequence[Tensor] = self.model.model.pack_image_features([crops], size[None], newline, ratio)[0]
        return found[0]

    def _videos(self, pixels: Tensor, looking: bool) -> list[Seen]:
        """Pooled features of every video with the one marker at its end, and their places; a block is a frame."""
        with capturing(self._source, looking) as shown:
            pooled = self.model.get_video_features(pixels, return_dict=True).pooler_output
        newline = self.model.model.image_newline.to(pooled)[None]
        side = math.ceil(self._side / 2)
        places = torch.cat([grid(pixels.shape[1], side, side, self.device), self._markers(1)])
        features = [torch.cat([video, newline]) for video in pooled]
        if not looking:
            return [Seen(feature, places) for feature in features]
        maps = self.model.model.apply_pooling(torch.stack(shown)).unflatten(0, (len(pooled), -1)).flatten(1, 2)
        maps = torch.cat([maps, maps.new_zeros(len(maps), 1, maps.shape[2])], 1)
        return [Seen(feature, places, self._tower(one, feature)) for feature, one in zip(features, maps, strict=True)]

    def limit_pictures(self) -> None:
        """Grids of no more than `limit` tiles, for the processor that cuts them and the model that packs them."""
        side = self.model.config.vision_config.image_size
        self._pinpoints = self._pinpoints or [list(pair) for pair in self.model.config.image_grid_pinpoints]
        wanted = [pair for pair in self._pinpoints if not self.limit or pair[0] * pair[1] <= self.limit * side**2]
        grids = wanted or [min(self._pinpoints, key=math.prod)]
        self.model.config.image_grid_pinpoints = self.processor.image_processor.image_grid_pinpoints = grids

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

    def _places(self, size: Tensor, crops: int, length: int) -> Tensor:
        """Places [length, 3] of an image's tokens: block 0 is the whole picture, 1 .. are its tiles, packed in one grid.

        Found by packing crops that say which they are. Where the packed tiles were shrunk, a token is a mean of up to four
        patches and belongs to the tile that gives it most, the earlier one of equals.

        Raises:
            ValueError: packing gives another number of tokens.
        """
        whole = grid(1, self._side, self._side, self.device)
        if crops == 1:
            return torch.cat([whole, self._markers(length - len(whole))])
        named = torch.eye(crops, device=self.device)[:, None].expand(-1, len(whole), -1)
        packed = self.packed(named, size)
        if len(packed) != length:
            raise ValueError(f"{length} visual tokens where packing gives {len(packed)}")
        parts = (packed[len(whole) :] * 1024).round().long()
        shown = parts.sum(1) > 0
        rows = int((~shown).sum())
        places = grid(1, rows, len(parts) // rows, self.device)
        places[:, 0] = (parts * crops - torch.arange(crops, device=self.device)).argmax(1)
        places[~shown] = -1
        return torch.cat([whole, places])

    def _markers(self, count: int) -> Tensor:
        """Places [count, 3] of newline markers."""
        return torch.full((count, 3), -1, device=self.device)
