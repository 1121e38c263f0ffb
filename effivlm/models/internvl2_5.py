"""InternVL2.5 (arXiv 2412.05271) in transformers' native form: InternViT with a class token, tiles, pixel shuffle."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import groupby
from typing import Any, ClassVar

from effivlm.models._adapter import Adapter, Visual, grid


class InternVL(Adapter):
    """InternVL2.5 in transformers' native form; images and video frames share one placeholder."""

    model_type: ClassVar[str] = "internvl"
    class_name: ClassVar[str] = "InternVLForConditionalGeneration"
    positions_after_pruning: ClassVar[str] = "compact"
    checkpoints: ClassVar[Mapping[str, str]] = {
        "micro_internvl2_5": "package:effivlm_micro/micro_internvl2_5",
        "internvl2_5_8b": "OpenGVLab/InternVL2_5-8B-MPO-hf",
    }

    def encode(self, inputs: Mapping[str, Any], looking: bool = False) -> Visual:
        if "pixel_values" not in inputs:
            return Visual((), ())
        tiles = self.model.get_image_features(inputs["pixel_values"], return_dict=True).pooler_output
        here = (inputs["input_ids"][0] == self.model.config.image_token_id).tolist()
        runs = [sum(1 for _ in run) for is_visual, run in groupby(here) if is_visual]
        features = tiles.flatten(0, 1).split(runs)
        side = math.isqrt(tiles.shape[1])
        return Visual(features, tuple(grid(len(part) // tiles.shape[1], side, side, part.device) for part in features))
