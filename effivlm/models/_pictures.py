"""How a picture of any kind becomes the RGB of 8 bits that every model is shown, and every report."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

POLICY = (
    "EXIF orientation applied; transparency laid on white; 16 bit and float scaled to 8 bit; first frame; other colour spaces"
    " converted without their ICC profile"
)
"""The choice in words, as a run's header records it."""
DEEP = ("I", "F")  # and all kinds of I;16


def plain(image: Image) -> Image:
    """The picture as RGB, 8 bits a channel; one that is so already is returned as it is.

    - EXIF orientation is applied, so that width and height may change places;
    - transparency (RGBA, LA, PA, a palette's or a single transparent colour) is laid on white;
    - I;16 is scaled by 1/257. I holds 16 bit too, as PNG readers give it, unless no value is above 255;
    - F is scaled from [0, 1]; where a value is above 1 from [0, 255], above 255 from [0, 65535];
    - values outside are clipped; everything else is converted by PIL.

    Raises:
        OSError: the file is torn.
        ValueError: the picture has no pixels, or is of floats and holds NaN or infinity.
    """
    from PIL import Image as module
    from PIL import ImageOps

    if 0 in image.size:
        raise ValueError(f"a picture of {image.width} x {image.height} pixels shows nothing")
    upright = ImageOps.exif_transpose(image) if image.getexif().get(0x0112, 1) != 1 else image
    if upright.mode in DEEP or upright.mode.startswith("I;16"):
        return _scaled(upright).convert("RGB")
    if upright.has_transparency_data:
        seen = (upright.convert("LA") if upright.mode == "La" else upright).convert("RGBA")
        return module.alpha_composite(module.new("RGBA", seen.size, "white"), seen).convert("RGB")
    return upright if upright.mode == "RGB" else upright.convert("RGB")


def _scaled(image: Image) -> Image:
    """A picture of one deep channel as L."""
    import numpy as np
    from PIL import Image as module

    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("a picture of floats holds NaN or infinity")
    top, most = 65535.0, values.max(initial=0)
    if image.mode in DEEP and most <= 255:
        top = 1.0 if image.mode == "F" and most <= 1 else 255.0
    return module.fromarray(np.floor(values.clip(0, top) * (255 / top) + 0.5).astype(np.uint8))
