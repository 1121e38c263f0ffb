"""LLaVA-1.5 (arXiv 2310.03744): every picture is one square of a CLIP tower with a class token; no videos."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from effivlm.models._adapter import Adapter, Visual, grid
from effivlm.models._tower import brought, capturing, feeding


class Llava(Adapter):
    """LLaVA-1.5; a picture makes 576 tokens whatever its size, cut to a square in its middle by the published processor."""

    model_type: ClassVar[str] = "llava"
    class_name: ClassVar[str] = "LlavaForConditionalGeneration"
    positions_after_pruning: ClassVar[str] = "compact"
    checkpoints: ClassVar[Mapping[str, str]] = {"llava_1_5_7b": "llava-hf/llava-1.5-7b-hf"}

    def encode(self, inputs: Mapping[str, Any], looking: bool = False) -> Visual:
        if "pixel_values" not in inputs:
            return Visual((), ())
        config = self.model.config
        source = feeding(self.model.model.vision_tower, config.vision_feature_layer)
        with capturing(source, looking, class_token=True) as shown:
            features = tuple(self.model.get_image_features(inputs["pixel_values"], return_dict=True).pooler_output)
        side = math.isqrt(len(features[0]))
        places = tuple(grid(1, side, side, one.device) for one in features)
        heads = config.vision_config.num_attention_heads
        towers = tuple(brought(*pair, heads) for pair in zip(shown, features, strict=True)) if looking else None
        return Visual(features, places, towers)
