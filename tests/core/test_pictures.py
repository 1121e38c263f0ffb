"""One policy for pictures of every kind, whoever looks at them."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
import torch
from forms import picture
from PIL import Image, ImageCms

from effivlm.compression.base import ImagePart
from effivlm.models._adapter import Adapter
from effivlm.models._pictures import plain
from effivlm.records import Budget, Sample
from effivlm.run.shown import sample_record
from effivlm.run.tree import Tree

WIDTH, HEIGHT = 60, 44
RED = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
RED[..., 0] = 255
RED[:, WIDTH // 2 :, 3] = 255  # the left half is transparent


def half(colour: tuple[int, int, int] = (255, 0, 0)) -> np.ndarray[Any, Any]:
    expected = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    expected[:, WIDTH // 2 :] = colour
    return expected


def transparent(mode: str) -> Image.Image:
    """The red half in a mode that knows transparency, as its files hold it."""
    whole = Image.fromarray(RED, "RGBA")
    if mode == "P":
        made = Image.fromarray((RED[..., 3] // 255).astype(np.uint8), "P")
        made.putpalette([0, 255, 0, 255, 0, 0])
        made.info["transparency"] = 0
        return made
    if mode == "RGB":
        made = whole.convert("RGB")
        made.paste((1, 2, 3), (0, 0, WIDTH // 2, HEIGHT))
        made.info["transparency"] = (1, 2, 3)
        return made
    return whole.convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "RGBa", "P", "RGB"])
def test_transparency_lies_on_white(mode: str) -> None:
    assert np.array_equal(np.asarray(plain(transparent(mode))), half())


@pytest.mark.parametrize("mode", ["LA", "La", "PA"])
def test_transparency_of_grey_and_palettes_lies_on_white(mode: str) -> None:
    grey = np.zeros((HEIGHT, WIDTH, 2), np.uint8)
    grey[:, WIDTH // 2 :] = (70, 255)
    made = Image.fromarray(grey, "LA")
    if mode == "PA":
        made = Image.merge("LA", made.split()).convert("RGBA").convert("PA")
    elif mode == "La":
        made = made.convert("La")
    assert np.array_equal(np.asarray(plain(made)), half((70, 70, 70)))


def test_half_transparent_pixels_are_mixed_with_white() -> None:
    made = Image.new("RGBA", (4, 4), (0, 0, 0, 128))
    assert np.asarray(plain(made)).tolist() == np.full((4, 4, 3), 127).tolist()


RAMP = np.linspace(0, 1, WIDTH)[None].repeat(HEIGHT, 0)


@pytest.mark.parametrize(
    "made",
    [
        Image.fromarray(np.round(RAMP * 65535).astype(np.uint16)),
        Image.frombytes("I;16B", (WIDTH, HEIGHT), np.round(RAMP * 65535).astype(">u2").tobytes()),
        Image.fromarray(np.round(RAMP * 65535).astype(np.int32), "I"),
        Image.fromarray(np.round(RAMP * 255).astype(np.int32), "I"),
        Image.fromarray(RAMP.astype(np.float32), "F"),
        Image.fromarray((RAMP * 255).astype(np.float32), "F"),
        Image.fromarray((RAMP * 65535).astype(np.float32), "F"),
    ],
    ids=["I;16", "I;16B", "I", "I of 8 bit", "F", "F of 8 bit", "F of 16 bit"],
)
def test_deep_pictures_are_scaled_to_eight_bits(made: Image.Image) -> None:
    found = np.asarray(plain(made)).astype(int)
    assert np.abs(found - np.round(RAMP * 255)[..., None]).max() <= 1
    assert found[0, 0].tolist() == [0] * 3
    assert found[0, -1].tolist() == [255] * 3


def test_a_deep_picture_comes_back_from_a_png_as_it_was() -> None:
    file = io.BytesIO()
    Image.fromarray(np.round(RAMP * 65535).astype(np.uint16)).save(file, "PNG")
    assert np.abs(np.asarray(plain(Image.open(file))).astype(int) - np.round(RAMP * 255)[..., None]).max() <= 1


def test_floats_beyond_their_range_are_clipped_and_those_that_are_no_number_refused() -> None:
    values = np.array([[-1.0, 0.5, 1.0]], np.float32)
    assert np.asarray(plain(Image.fromarray(values)))[0, :, 0].tolist() == [0, 128, 255]
    values[0, 1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        plain(Image.fromarray(values))


@pytest.mark.parametrize("turn", range(1, 9))
def test_the_orientation_that_a_camera_noted_is_applied(turn: int) -> None:
    upright = picture(WIDTH, HEIGHT, 3)
    methods = [None, *(Image.Transpose(number) for number in (0, 3, 1, 5, 2, 6, 4))]
    stored = upright if methods[turn - 1] is None else upright.transpose(methods[turn - 1])
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = turn
    stored.save(file, "PNG", exif=exif)
    assert np.array_equal(np.asarray(plain(Image.open(file))), np.asarray(upright))


@pytest.mark.parametrize("mode", ["1", "L", "CMYK", "YCbCr", "HSV", "P"])
def test_other_modes_are_what_pil_makes_of_them(mode: str) -> None:
    made = picture(WIDTH, HEIGHT, 4).convert(mode)
    assert np.array_equal(np.asarray(plain(made)), np.asarray(made.convert("RGB")))


def test_lab_is_converted_and_rgb_is_left_alone() -> None:
    same = picture(WIDTH, HEIGHT, 4)
    assert plain(same) is same
    lab = ImageCms.profileToProfile(
        same, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert lab is not None
    assert plain(lab).mode == "RGB"


def test_a_model_a_report_and_a_method_see_the_same_picture(model: Adapter) -> None:
    seen, white = Image.fromarray(half()), transparent("RGBA")
    ours, expected = (model.prepare(Sample("s", "?", (), (one,))) for one in (white, seen))
    assert torch.equal(ours["pixel_values"], expected["pixel_values"])
    frames, same = (model.prepare(Sample("s", "?", (), (), (one,) * 2)) for one in (white, seen))
    name = "pixel_values_videos" if "pixel_values_videos" in same else "pixel_values"
    assert torch.equal(frames[name], same[name])
    record = sample_record("toy", Sample("s", "?", (), (white,)))
    small = Image.open(io.BytesIO(base64.b64decode(record["pictures"][0].partition(",")[2])))
    assert np.abs(np.asarray(small.resize((WIDTH, HEIGHT))).astype(int)[:, 2] - 255).max() < 40

    class Same(ImagePart):
        def shrink(self, images: Any, count: Any) -> list[Any]:
            assert [image.mode for image in images] == ["RGB"]
            return list(images)

    shown = Tree(model, Sample("s", "?", (), (white,)), [])._shown(Same(keep=Budget.parse("1"), seed=0))
    assert np.array_equal(np.asarray(shown.images[0]), half())


def test_a_picture_without_pixels_is_refused() -> None:
    with pytest.raises(ValueError, match="a picture of 0 x 5 pixels shows nothing"):
        plain(Image.new("RGB", (0, 5)))
