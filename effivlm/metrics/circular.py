"""CircularEval, the rule of MMBench (arXiv 2307.06281)."""

from __future__ import annotations

from collections.abc import Sequence


def circular(rights: Sequence[float]) -> list[float]:
    """What the rotations of one question count, from whether each is right (0 or 1): 1 if all of them are, else 0.

    Where every question has as many rotations, the mean is the official one over questions.
    """
    return [float(all(rights))] * len(rights)
