"""Where a method works on a prompt: one part a seam, from the picture to the cache."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from effivlm.compression.base import Method, Part
from effivlm.compression.composed import Composed
from effivlm.compression.weights import WeightMethod
from effivlm.records import SEAMS

Path = tuple[Part | None, ...]
"""What a method does at the seams, or at those before the cache: image, vision, layer."""
PROMPT_SEAMS = SEAMS[1:]
"""Weights are changed before any prompt comes."""


def path_of(method: Method) -> Path:
    """The part of a method at each seam, None where it does nothing.

    Raises:
        ValueError: two parts claim one seam.
    """
    path: list[Part | None] = [None] * len(PROMPT_SEAMS)
    for part in method.parts:
        place = PROMPT_SEAMS.index(part.seam)
        if path[place] is not None:
            raise ValueError(f"two parts work at the {part.seam} seam: {path[place]} and {part}")
        path[place] = part
    return tuple(path)


def of_prompts(method: Method) -> tuple[Method, ...]:
    """The methods of a cell that work on prompts, in order: all but one that changed the checkpoint before."""
    each = method.methods if isinstance(method, Composed) else (method,)
    return tuple(one for one in each if not isinstance(one, WeightMethod))


def ways(path: Path) -> Iterator[Path]:
    """What a path before the cache may come to once it is known how long a prompt is: a number of tokens may be all there is."""
    counted = (part is not None and part.keep.kind == "tokens" for part in path)
    return product(*((part, None) if counts else (part,) for part, counts in zip(path, counted, strict=True)))
