"""Qwen3-VL (arXiv 2511.21631): as Qwen2-VL, with features of several depths of the tower and a timestamp a pair of frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from effivlm.models._adapter import Adapter
from effivlm.models.qwen2_vl import Qwen2Vl, sized
from effivlm.records import Sample


class Qwen3Vl(Qwen2Vl):
    """Qwen3-VL; the first decoder layers are followed by features of the tower's depth (DeepStack), which a pruned token loses
    with its place and a merged one takes from its anchor."""

    model_type: ClassVar[str] = "qwen3_vl"
    class_name: ClassVar[str] = "Qwen3VLForConditionalGeneration"
    checkpoints: ClassVar[Mapping[str, str]] = {"qwen3_vl_8b": "Qwen/Qwen3-VL-8B-Instruct"}

    def video_arguments(self, sample: Sample) -> dict[str, Any]:
        """Frames have at most 768 tokens and their share of the video's pixels, as in the reference implementation; the bounds of
        its processor are those of the whole video, where Qwen2-VL's are of a frame."""
        size = self.processor.video_processor.size
        most = min(int(size["longest_edge"]), self.limit * len(sample.video) or int(size["longest_edge"]))
        about = {"cap_pixels_per_frame": True, "size": sized(size, most)}
        return {**Adapter.video_arguments(self, sample), "videos_kwargs": about}
