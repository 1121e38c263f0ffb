"""Qwen2.5-VL (arXiv 2502.13923): as Qwen2-VL, with a tower of windows and videos whose positions follow their times."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import ClassVar

import torch
from torch import Tensor, nn

from effivlm.models._adapter import Adapter
from effivlm.models.qwen2_vl import Qwen2Vl
from effivlm.seams.windows import joining


class Qwen25Vl(Qwen2Vl):
    """Qwen2.5-VL; attention that a token received is counted in the tower's last layer, which sees whole images in all that
    were published."""

    model_type: ClassVar[str] = "qwen2_5_vl"
    class_name: ClassVar[str] = "Qwen2_5_VLForConditionalGeneration"
    checkpoints: ClassVar[Mapping[str, str]] = {"qwen2_5_vl_7b": "Qwen/Qwen2.5-VL-7B-Instruct"}

    def running(self) -> AbstractContextManager[None]:
        return joining([block.attn for block in self.model.model.visual.blocks])

    def ordered(self, means: Tensor, shapes: Tensor) -> Tensor:
        """The tower sorts its tokens by window, and puts back its features alone."""
        from transformers.vision_utils import get_vision_window_index

        vision = self.model.config.vision_config
        index, _ = get_vision_window_index(
            shapes.cpu(), vision.spatial_merge_size, vision.window_size, vision.patch_size
        )
        return means[torch.argsort(index).to(means.device)]

    def beside(self, dynamic: bool) -> list[nn.Module]:
        # windows differ in number from picture to picture: their blocks would be compiled again and again
        return Adapter.beside(self, dynamic)
