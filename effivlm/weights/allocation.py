"""How many weights of each block become zero: in proportion to what the loss says of the blocks, at an exact total."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

from effivlm.compression.budget import apportion

NOTHING = Fraction(1, 10**30)
"""Of the smallest score: too little for one weight, and enough to share what no other block has room for."""


def allocated(
    sizes: Mapping[str, Sequence[int]], scores: Mapping[str, float], zeros: Fraction, most: Fraction
) -> dict[str, list[int]]:
    """Zeros of every linear of every block, `zeros` of all weights together, half up; no block loses more than `most`, rounded up
    where that alone leaves room for all zeros.

    What stays of a block beyond its least is in proportion to its score; blocks that score 0 share alike what the others leave.
    Inside a block all linears lose the same share.

    Raises:
        ValueError: a score is negative or no number.
    """
    for name, score in scores.items():
        if not (math.isfinite(score) and score >= 0):
            raise ValueError(f"the score {score} of block {name} is none: it must be a number of 0 or more")
    whole = [sum(block) for block in sizes.values()]
    total = math.floor(zeros * sum(whole) + Fraction(1, 2))
    least = [size - math.floor(most * size) for size in whole]
    weights = [Fraction(scores[name]) for name in sizes]
    if any(weights):
        weights = [weight or NOTHING * min(filter(None, weights)) for weight in weights]
    kept_total = sum(whole) - total
    if sum(least) > kept_total:
        least = [size - math.ceil(most * size) for size in whole]
    spare = kept_total - sum(least)
    if spare < 0:
        raise ValueError(f"no block may lose more than {float(most):g}, so not {float(zeros):g} of all weights")
    room = [size - low for size, low in zip(whole, least, strict=True)]
    more = apportion(weights if any(weights) else whole, spare, high=room)
    lost = [size - low - extra for size, low, extra in zip(whole, least, more, strict=True)]
    return {
        name: apportion(block, count, high=list(block)) if count else [0] * len(block)
        for (name, block), count in zip(sizes.items(), lost, strict=True)
    }
