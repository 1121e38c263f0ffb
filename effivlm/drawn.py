"""A sample whose prompt has a given length, for timings: what is on its picture does not matter, how large it is does."""

from __future__ import annotations

import torch
from PIL import Image

from effivlm.models._adapter import Adapter
from effivlm.records import Sample

QUESTION = "What does the picture show?"
PAGE = (17, 22)
"""Width and height, of a letter page, in the unit that is looked for."""
TRIES = 14
FAR = 0.25
"""Share of the length asked for by which a prompt may miss it: some models grow by whole tiles."""
_SCALES: dict[tuple[str, int], float] = {}


def page(model: Adapter, tokens: int) -> Sample:
    """A picture of noise whose prompt is about as long as asked, found by halving its size; the same for every call.

    Raises:
        ValueError: no picture makes a prompt within a quarter of that length; models shrink what is too large for them.
    """
    known = _SCALES.get((model.source.identity, tokens))
    if known is None:
        known = _SCALES[model.source.identity, tokens] = _scale(model, tokens)
    return _sample(known)


def _scale(model: Adapter, tokens: int) -> float:
    low, high = 2.0, 200.0
    best = (float("inf"), low)
    for _ in range(TRIES):
        middle = (low + high) / 2
        count = model.prepare(_sample(middle))["input_ids"].shape[1]
        best = min(best, (abs(count - tokens), middle))
        low, high = (middle, high) if count < tokens else (low, middle)
    if best[0] > FAR * tokens:
        nearest = model.prepare(_sample(best[1]))["input_ids"].shape[1]
        raise ValueError(
            f"no picture makes a prompt of about {tokens} tokens for {model.source.name}; the nearest has {nearest}"
        )
    return best[1]


def _sample(scale: float) -> Sample:
    width, height = (max(28, round(side * scale)) for side in PAGE)
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (height, width, 3), generator=rng, dtype=torch.uint8).numpy()
    return Sample("page", QUESTION, ("",), (Image.fromarray(pixels),))
