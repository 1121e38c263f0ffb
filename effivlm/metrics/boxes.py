"""Boxes: the score of RefCOCO, RefCOCO+ and RefCOCOg, in the coordinates that a family speaks (arXiv 1608.00272)."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple, get_args

from effivlm.metrics.profiles import FIXED, Profile, compat

Coordinates = Literal["unit", "thousand", "pixels"]
THRESHOLD = 0.5
_NUMBER = r"\s*(-?\d+(?:\.\d+)?)\s*"
_OFFICIAL = re.compile(r"\[\s*(-?\d+(?:\.\d+)?),\s*(-?\d+(?:\.\d+)?),\s*(-?\d+(?:\.\d+)?),\s*(-?\d+(?:\.\d+)?)\s*\]")
_FOUR = re.compile(rf"[\[(]{_NUMBER},{_NUMBER}(?:[\])]\s*,\s*[\[(]|,){_NUMBER},{_NUMBER}[\])]")
_BARE = re.compile(rf"{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}(?:\.\s*)?")


class Box(NamedTuple):
    """A box by its corners, as shares of the picture's width and height: left and top first, 0 to 1."""

    left: float
    top: float
    right: float
    bottom: float


def parse_box(
    text: str,
    coordinates: Coordinates = "unit",
    size: tuple[float, float] | None = None,
    profile: Profile = FIXED,
) -> Box | None:
    """The box that an answer writes, in shares of the picture; None (invalid) if it writes none.

    `coordinates` says what the numbers are: shares ("unit", LLaVA), thousandths ("thousand", InternVL, Qwen2-VL) or pixels of
    the picture that the model saw ("pixels", Qwen2.5-VL), whose `size` is (width, height). The first of "[x1, y1, x2, y2]",
    "(x1,y1),(x2,y2)" and the bare four numbers counts; corners in the wrong order are put right. `compat` (lmms-eval) knows the
    first form alone, takes corners as they come, and reads an answer without one as the box of four zeros.
    Raises ValueError for unknown coordinates, and for pixels without a size above 0.
    """
    if coordinates not in get_args(Coordinates):
        raise ValueError(f"coordinates {coordinates!r} are not one of {', '.join(get_args(Coordinates))}")
    if coordinates == "pixels" and (size is None or min(size) <= 0):
        raise ValueError(f"a box in pixels needs the picture's width and height above 0, got {size}")
    wide, high = (
        size if coordinates == "pixels" and size else (1000.0, 1000.0) if coordinates == "thousand" else (1.0, 1.0)
    )
    if compat(profile):
        official = _OFFICIAL.search(text)
        found = [float(part) for part in official.groups()] if official else [0.0] * 4
        return Box(found[0] / wide, found[1] / high, found[2] / wide, found[3] / high)
    hit = _FOUR.search(text) or _BARE.fullmatch(text.strip())
    if not hit:
        return None
    left, top, right, bottom = (float(part) for part in hit.groups())
    (left, right), (top, bottom) = sorted((left, right)), sorted((top, bottom))
    return Box(left / wide, top / high, right / wide, bottom / high)


def iou(box: Box, other: Box) -> float:
    """Intersection over union in [0, 1]; 0 where neither box has an area, and where a number is not finite."""
    width = min(box.right, other.right) - max(box.left, other.left)
    height = min(box.bottom, other.bottom) - max(box.top, other.top)
    shared = max(0.0, width) * max(0.0, height)
    whole = _area(box) + _area(other) - shared
    share = shared / whole if whole > 0 else 0.0
    return share if 0.0 <= share <= 1.0 else 0.0


def box_hit(
    prediction: str,
    reference: Box,
    coordinates: Coordinates = "unit",
    size: tuple[float, float] | None = None,
    profile: Profile = FIXED,
) -> float:
    """1 if the answer's box and the reference (in shares of the picture) overlap with IoU of at least 0.5, else 0.

    Raises as `parse_box` does.
    """
    box = parse_box(prediction, coordinates, size, profile)
    return float(box is not None and iou(box, reference) >= THRESHOLD)


def _area(box: Box) -> float:
    return max(0.0, box.right - box.left) * max(0.0, box.bottom - box.top)
