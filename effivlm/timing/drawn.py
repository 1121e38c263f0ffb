"""A sample whose prompt has a given length, for timings: what is on its picture does not matter, how large it is does."""

from __future__ import annotations

import torch
from PIL import Image

from effivlm.models._adapter import Adapter
from effivlm.records import Sample

QUESTION = "What does the picture show?"
PAGE = (17, 22)
"""Width and height, of a letter page, in the unit that is looked for."""
SMALLEST, LARGE = 2.0, 32.0
"""Between these (34 x 44 and 544 x 704 pixels) a picture may grow without making more tokens."""
TRIES = 12
FAR = 0.25
"""Share of the length asked for by which a prompt may miss it: some models grow by whole tiles."""
_SCALES: dict[tuple[str, int, int], float] = {}


class NoPicture(ValueError):
    """No picture makes a prompt of the length that was asked for."""


def page(model: Adapter, tokens: int) -> Sample:
    """A picture of noise whose prompt is about as long as asked, found by halving its size; the same for every call.

    Raises:
        NoPicture: none makes a prompt within a quarter of that length; models shrink what is too large for them.
    """
    key = (model.source.identity, model.limit, tokens)
    known = _SCALES.get(key)
    if known is None:
        known = _SCALES[key] = _scale(model, tokens)
    return _sample(known)


def _scale(model: Adapter, tokens: int) -> float:
    tried: dict[float, int] = {}

    def count(scale: float) -> int:
        tried[scale] = model.prepare(_sample(scale))["input_ids"].shape[1]
        return tried[scale]

    low, high = SMALLEST, LARGE
    while count(high) < tokens and tried[high] > tried.get(
        high / 2, 0
    ):  # a larger one is shrunk where it makes no more
        high *= 2
    for _ in range(TRIES):
        middle = (low + high) / 2
        low, high = (middle, high) if count(middle) < tokens else (low, middle)
    found = min(tried, key=lambda scale: (abs(tried[scale] - tokens), scale))
    nearest = tried[found]
    if abs(nearest - tokens) > FAR * tokens:
        raise NoPicture(
            f"no picture makes a prompt of about {tokens} tokens for {model.source.name}; the nearest has {nearest}"
        )
    return found


def _sample(scale: float) -> Sample:
    width, height = (max(28, round(side * scale)) for side in PAGE)
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (height, width, 3), generator=rng, dtype=torch.uint8).numpy()
    return Sample("page", QUESTION, ("",), (Image.fromarray(pixels),))
