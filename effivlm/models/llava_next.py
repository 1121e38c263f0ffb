"""LLaVA-NeXT (LLaVA-1.6): the tower of LLaVA-1.5 over a picture and its tiles, packed row by row with newline markers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from effivlm.models.llava_onevision import LlavaOnevision


class LlavaNext(LlavaOnevision):
    """LLaVA-NeXT; every picture is tiled, also where there are several, and tiles are never shrunk; no videos."""

    model_type: ClassVar[str] = "llava_next"
    class_name: ClassVar[str] = "LlavaNextForConditionalGeneration"
    checkpoints: ClassVar[Mapping[str, str]] = {"llava_next_7b": "llava-hf/llava-v1.6-vicuna-7b-hf"}
    class_token: ClassVar[bool] = True

    def image_features(self, inputs: Mapping[str, Any]) -> Sequence[Tensor]:
        found: Sequence[Tensor] = self.model.get_image_features(
            inputs["pixel_values"], inputs["image_sizes"], return_dict=True
        ).pooler_output
        return found

    def packed(self, crops: Tensor, size: Tensor) -> Tensor:
        newline = crops.new_zeros(crops.shape[2:])
        found: Sequence[Tensor] = self.model.model.pack_image_features([crops], size[None], "full", newline)[0]
        return found[0]
