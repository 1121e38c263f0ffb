"""Pictures as published sets hold them: encoded bytes, paths, or decoded already."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image


def picture(value: Any, folder: Path | None = None) -> Image:
    """Decode one picture completely.

    `value` is a decoded picture, bytes, a path, or the {"bytes", "path"} of a parquet file; relative paths start at `folder`.

    Raises:
        ValueError: there is no picture in it, the file is missing, or the picture is torn; says which and where.
    """
    from PIL import Image, UnidentifiedImageError

    if isinstance(value, Image.Image):
        return value
    data, path = (value.get("bytes"), value.get("path")) if isinstance(value, Mapping) else (None, value)
    if isinstance(value, bytes):
        data, path = value, None
    if data is None and not path:
        raise ValueError("a sample has no picture where its benchmark has one")
    place = (folder or Path()) / str(path or "")
    named = f"the picture {place if data is None else path or 'inside the table'}"
    try:
        with Image.open(place if data is None else BytesIO(data)) as opened:
            opened.load()  # leaving closes the file, which a picture of several frames would hold open
    except FileNotFoundError:
        raise ValueError(f"{named} is missing") from None
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{named} cannot be decoded: {error}") from None
    return opened
