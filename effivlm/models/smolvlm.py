"""SmolVLM and SmolVLM2 (arXiv 2504.05299): SigLIP tower without a class token, tiles and then the whole picture, pixel shuffle.

Its processor writes the number of a video's frames in words, for which the package num2words is needed (extra `smolvlm`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor

from effivlm.models._adapter import Adapter, Visual, grid
from effivlm.models._tower import brought, capturing, feeding
from effivlm.records import Sample, Unsupported
from effivlm.seams.hooks import Tower

MASK = "pixel_attention_mask"


class SmolVlm(Adapter):
    """SmolVLM and SmolVLM2; a sample holds images or a video, as the processor has one name for the pixels of both."""

    model_type: ClassVar[str] = "smolvlm"
    class_name: ClassVar[str] = "SmolVLMForConditionalGeneration"
    positions_after_pruning: ClassVar[str] = "compact"
    checkpoints: ClassVar[Mapping[str, str]] = {"smolvlm2_2_2b": "HuggingFaceTB/SmolVLM2-2.2B-Instruct"}

    def given(self, sample: Sample) -> Mapping[str, Any]:
        if sample.images and sample.video:
            raise Unsupported(
                f"model {self.source.name!r} ({self.model_type}) takes images or a video, and {sample.id!r} holds both"
            )
        inputs = super().given(sample)
        # frames are whole squares; without a mask of ones the model makes its own
        return {name: value for name, value in inputs.items() if name != MASK} if sample.video else inputs

    def video_arguments(self, sample: Sample) -> dict[str, Any]:
        given = super().video_arguments(sample)
        return {**given, "videos": [given["videos"]]}  # its processor counts the videos of each turn

    def encode(self, inputs: Mapping[str, Any], looking: bool = False) -> Visual:
        if "pixel_values" not in inputs:
            return Visual((), ())
        with capturing(feeding(self.model.model.vision_model, -1), looking) as shown:
            tiles = self.model.get_image_features(inputs["pixel_values"], inputs.get(MASK)).pooler_output
        counts = self._tiles(inputs["input_ids"][0]) if MASK in inputs else [len(tiles)]
        side = math.isqrt(tiles.shape[1])
        features = tuple(tiles.flatten(0, 1).split([count * side**2 for count in counts]))
        places = tuple(grid(count, side, side, tiles.device) for count in counts)
        return Visual(features, places, self._towers(shown, side, features) if looking else None)

    def _tiles(self, ids: Tensor) -> list[int]:
        """Tiles of each image, whose last one is the whole picture and has a marker of its own."""
        config, whole = self.model.config, self.processor.tokenizer.convert_tokens_to_ids(self._whole)
        runs = [(token, sum(1 for _ in run)) for token, run in groupby(ids.tolist())]
        counts, tiles = list[int](), 0
        for (before, _), (token, length) in pairwise(runs):
            if token == config.image_token_id:
                tiles += length // self.processor.image_seq_len
                if before == whole:
                    counts.append(tiles)
                    tiles = 0
        return counts

    @property
    def _whole(self) -> str:
        return str(self.processor.global_image_token)

    def limiting(self, limit: int) -> dict[str, Any]:
        return {"images_kwargs": {"size": {"longest_edge": self._edge * max(1, math.isqrt(limit))}}} if limit else {}

    def tighter(self) -> Iterator[int]:
        yield self.limit
        most = self.limit or (self.processor.image_processor.size["longest_edge"] // self._edge) ** 2
        yield from (side**2 for side in range(math.isqrt(most - 1), 0, -1))

    def tokens_of(self, sizes: Sequence[tuple[int, int]], limit: int) -> int:
        given = self.limiting(limit).get("images_kwargs", {})
        count = self.processor.image_processor.get_number_of_image_patches
        tiles = sum(max(1, int(count(*size, given)[0])) for size in sizes)
        return tiles * int(self.processor.image_seq_len)

    @property
    def _edge(self) -> int:
        return int(self.processor.image_processor.max_image_size["longest_edge"])

    def _towers(self, shown: Sequence[Tensor], side: int, features: Sequence[Tensor]) -> tuple[Tower, ...]:
        """Means over the square of patches that the pixel shuffle puts into one token."""
        patches, cell = torch.stack(list(shown)), self.model.config.scale_factor
        means = patches.unflatten(1, (side, cell, side, cell)).mean((2, 4)).flatten(0, 2)
        heads = self.model.config.vision_config.num_attention_heads
        parts = means.split([len(part) for part in features])
        return tuple(brought(*pair, heads) for pair in zip(parts, features, strict=True))
