"""Twins of the three families, loaded once, and samples of every form."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))
import twins

from effivlm.models._adapter import Adapter
from effivlm.models._sources import resolve
from effivlm.records import Sample, Settings
from effivlm.run import open_model

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


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session", params=twins.FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    folder = twins.build(request.param, tmp_path_factory.mktemp(request.param))
    return open_model(resolve(f"twin={folder}"), Settings())
