"""The first token of an answer, and where NaN or infinity was seen first if its logits hold any."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from effivlm.decoding.caches import PromptCache
from effivlm.decoding.generation import Rules, sound, told


class NotFiniteError(ValueError):
    """What a model computed holds NaN or infinity, so that what it says means nothing."""


def first_token(rules: Rules, logits: Tensor, prompt: Sequence[int], features: Sequence[Tensor]) -> int:
    """The token chosen from a prefill's logits [vocab], or one below 0: these, or visual features, are not finite."""
    fine = sound(logits)
    for feature in features:
        fine = fine & feature.isfinite().all().to(fine.device)
    return int(told(rules.first(logits, prompt).argmax(), fine))


def not_finite(features: Sequence[Tensor], embeds: Tensor, cache: PromptCache) -> NotFiniteError:
    """An error that names the first place of a prefill that is not finite."""
    if error := in_features(features):
        return error
    if not _fine(embeds):
        return _error("the embeddings of the prompt")
    for number, pair in enumerate(zip(cache.keys, cache.values, strict=True)):
        if not all(_fine(part) for part in pair):
            return _error(f"the keys and values of decoder layer {number} in the prefill")
    return _error("the logits of the prefill")


def in_features(features: Sequence[Tensor]) -> NotFiniteError | None:
    """The same of the visual features of a sample's images; None where they are fine."""
    for number, feature in enumerate(features):
        if not _fine(feature):
            return _error(f"the visual features of image {number + 1} of {len(features)}")
    return None


def in_step(number: int) -> NotFiniteError:
    """The same of a decoding step; the first one is number 1."""
    return _error(f"the logits of decoding step {number}")


def _error(place: str) -> NotFiniteError:
    return NotFiniteError(f"NaN or infinity, first seen in {place}")


def _fine(values: Tensor) -> bool:
    return bool(torch.isfinite(values).all())
