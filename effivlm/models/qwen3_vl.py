"""Qwen3-VL (arXiv 2511.21631): as Qwen2-VL, with features of several depths of the tower and a timestamp a pair of frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from effivlm.models.qwen2_vl import Qwen2Vl


class Qwen3Vl(Qwen2Vl):
    """Qwen3-VL; the first decoder layers are followed by features of the tower's depth (DeepStack), which a pruned token loses
    with its place and a merged one takes from its anchor."""

    model_type: ClassVar[str] = "qwen3_vl"
    class_name: ClassVar[str] = "Qwen3VLForConditionalGeneration"
    checkpoints: ClassVar[Mapping[str, str]] = {"qwen3_vl_8b": "Qwen/Qwen3-VL-8B-Instruct"}
