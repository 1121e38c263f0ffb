"""InternVL2.5, 3 and 3.5 (arXiv 2412.05271, 2504.10479, 2508.18265) in transformers' native form.

InternViT with a class token, tiles, pixel shuffle. Only InternVL2.5-8B-MPO, the plain 8B after preference optimisation, was
published in this form, so that it stands for InternVL2.5-8B; the plain ones have to be converted. The decoder is a Llama, Qwen2
or Qwen3, as the configuration says.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, ClassVar

import torch
from torch import Tensor

from effivlm.models._adapter import Adapter, Visual, grid
from effivlm.models._tower import brought, capturing, feeding
from effivlm.seams.hooks import Tower


class InternVL(Adapter):
    """InternVL2.5, 3 and 3.5 in transformers' native form; images and video frames share one placeholder."""

    model_type: ClassVar[str] = "internvl"
    class_name: ClassVar[str] = "InternVLForConditionalGeneration"
    positions_after_pruning: ClassVar[str] = "compact"
    checkpoints: ClassVar[Mapping[str, str]] = {
        "micro_internvl2_5": "package:effivlm_micro/micro_internvl2_5",
        "internvl2_5_8b": "OpenGVLab/InternVL2_5-8B-MPO-hf",
        "internvl2_5_38b": "convert:OpenGVLab/InternVL2_5-38B",
        "internvl3_8b": "OpenGVLab/InternVL3-8B-hf",
        "internvl3_38b": "OpenGVLab/InternVL3-38B-hf",
        "internvl3_5_8b": "OpenGVLab/InternVL3_5-8B-HF",
    }
    originals: ClassVar[Mapping[str, str]] = {"internvl_chat": "effivlm.models._internvl_chat"}

    def encode(self, inputs: Mapping[str, Any], looking: bool = False) -> Visual:
        if "pixel_values" not in inputs:
            return Visual((), ())
        source = feeding(self.model.model.vision_tower, self.model.config.vision_feature_layer)
        with capturing(source, looking, class_token=True) as shown:
            tiles = self.model.get_image_features(inputs["pixel_values"], return_dict=True).pooler_output
        here = (inputs["input_ids"][0] == self.model.config.image_token_id).tolist()
        runs = [sum(1 for _ in run) for is_visual, run in groupby(here) if is_visual]
        features = tiles.flatten(0, 1).split(runs)
        side = math.isqrt(tiles.shape[1])
        places = tuple(grid(len(part) // tiles.shape[1], side, side, part.device) for part in features)
        return Visual(features, places, self._towers(shown, side, features) if looking else None)

    def limiting(self, limit: int) -> dict[str, Any]:
        if not limit:
            return {}
        return {"images_kwargs": {"max_patches": limit, "min_patches": min(limit, self._tiles.min_patches)}}

    def tighter(self) -> Iterator[int]:
        yield self.limit
        yield from range((self.limit or self._tiles.max_patches) - 1, 0, -1)

    def tokens_of(self, sizes: Sequence[tuple[int, int]], limit: int) -> int:
        arguments = {"crop_to_patches": True, **self.limiting(limit).get("images_kwargs", {})}
        tiles = sum(self._tiles.get_number_of_image_patches(*size, arguments) for size in sizes)
        return int(tiles * self.model.config.image_seq_length)

    @property
    def _tiles(self) -> Any:
        return self.processor.image_processor

    def _towers(self, shown: Sequence[Tensor], side: int, features: Sequence[Tensor]) -> tuple[Tower, ...]:
        """Means over the square of patches that the pixel shuffle puts into one token."""
        patches = torch.stack(list(shown))
        cell = math.isqrt(patches.shape[1]) // side
        means = patches.unflatten(1, (side, cell, side, cell)).mean((2, 4)).flatten(0, 2)
        parts = means.split([len(part) for part in features])
        heads = self.model.config.vision_config.num_attention_heads
        return tuple(brought(*pair, heads) for pair in zip(parts, features, strict=True))
