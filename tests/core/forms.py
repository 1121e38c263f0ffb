"""Samples of every form a question can have."""

from __future__ import annotations

import numpy as np
from PIL import Image

from effivlm.records import Sample

FORMS = ("text", "one", "two", "video", "both")


def picture(width: int, height: int, seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def sample(form: str, number: int = 0) -> Sample:
    """A question about nothing, one image, two images, four frames, or an image and frames."""
    one = picture(60 + 8 * number, 50, number)
    frames = tuple(picture(48, 48, seed) for seed in range(number, number + 4))
    images = {"one": (one,), "two": (one, picture(40, 70, number + 9)), "both": (one,)}.get(form, ())
    video = frames if form in ("video", "both") else ()
    return Sample(f"{form}-{number}", f"What is number {number}?", ("nothing",), images, video)
