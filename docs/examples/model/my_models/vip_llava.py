"""ViP-LLaVA: every picture is one tile of a tower with a class token, seen by several of its layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from effivlm.extending import Adapter, Visual, brought, capturing, feeding, grid


class VipLlava(Adapter):
    """ViP-LLaVA (arXiv 2312.00784), as transformers has it."""

    model_type: ClassVar[str] = "vipllava"
    class_name: ClassVar[str] = "VipLlavaForConditionalGeneration"
    checkpoints: ClassVar[Mapping[str, str]] = {"vip_llava_7b": "llava-hf/vip-llava-7b-hf"}

    def encode(self, inputs: Mapping[str, Any], looking: bool = False) -> Visual:
        """Features of every picture, their places, and with `looking` what the tower attended."""
        if "pixel_values" not in inputs:
            return Visual((), ())
        config = self.model.config
        source = feeding(self.model.model.vision_tower, config.vision_feature_layers)
        with capturing(source, looking, class_token=True) as shown:
            features = tuple(self.model.get_image_features(inputs["pixel_values"], return_dict=True).pooler_output)
        side = round(len(features[0]) ** 0.5)
        places = tuple(grid(1, side, side, one.device) for one in features)
        heads = config.vision_config.num_attention_heads
        towers = tuple(brought(*pair, heads) for pair in zip(shown, features, strict=True)) if looking else None
        return Visual(features, places, towers)
