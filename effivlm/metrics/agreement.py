"""How far two answers, or two sets of answers, agree beyond being the same: graded, by token, and against chance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import takewhile

import numpy as np
from rapidfuzz.distance import LCSseq

from effivlm.metrics.statistics import Floats

RIGHT = 0.5
WORDS = 8192
FLIPS = ("right_to_wrong", "wrong_to_right", "both_right", "both_wrong_same", "both_wrong_different")


def rouge_l(text: str, reference: str) -> float:
    """ROUGE-L F1 in [0, 1] (aclanthology.org/W04-1013): 2 x longest common subsequence / sum of both lengths, in words.

    Words are what stands between blanks, lower-cased, without stemming. Two empty answers agree fully, one alone not at
    all. Symmetric. Words past the first 8,192 do not count: time grows with the product of the lengths, and no task lets a
    model say as much.
    """
    words, others = text.lower().split()[:WORDS], reference.lower().split()[:WORDS]
    total = len(words) + len(others)
    return 2 * float(LCSseq.similarity(words, others)) / total if total else 1.0


def common_prefix(tokens: Sequence[int], others: Sequence[int]) -> int:
    """How many tokens two answers share before their paths part."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(tokens, others, strict=False)))


def prefix_share(common: Floats, own: Floats, dense: Floats) -> Floats:
    """Share in [0, 1] of the dense answer's tokens that lie in the common prefix, elementwise over equal shapes.

    All three are counts of tokens: of the common prefix, of the own answer, of the dense answer. To an empty dense answer
    only an empty one agrees (1, else 0). NaN in `common` stays NaN.
    """
    shares = np.divide(common, dense, out=(own == 0).astype(np.float64), where=dense > 0)
    return np.where(np.isnan(common), np.nan, shares)


def chance(labels: Sequence[str], others: Sequence[str]) -> float:
    """Share of pairs that would agree if both sides drew their labels at random: sum over labels of the two shares' product.

    Raises ValueError without labels.
    """
    if not labels or not others:
        raise ValueError("agreement by chance needs labels on both sides, got none")
    counts, dense = Counter(labels), Counter(others)
    return sum(count * dense[name] for name, count in counts.items()) / (len(labels) * len(others))


def kappa(agreeing: float, by_chance: float) -> float | None:
    """Cohen's kappa (doi 10.1177/001316446002000104): agreement above chance, 1 where perfect, 0 where chance does as well.

    Both arguments are shares in [0, 1]. None where chance agrees always (both sides gave one and the same label), which
    says nothing about loyalty.
    """
    return (agreeing - by_chance) / (1 - by_chance) if by_chance < 1 else None


def flips(scores: Floats, dense_scores: Floats, same: Floats) -> list[dict[str, int]]:
    """Counts by what became of dense's right and wrong answers, one dictionary a column of (samples, cells).

    Right is a score of at least 0.5. `same` is 1 or 0; pairs with NaN in any of the three are in no count. The five
    counts of a cell add up to its complete pairs.
    """
    known = ~(np.isnan(scores) | np.isnan(dense_scores) | np.isnan(same))
    right, was = scores >= RIGHT, dense_scores >= RIGHT
    masks = (was & ~right, ~was & right, was & right, ~was & ~right & (same == 1), ~was & ~right & (same != 1))
    columns: list[list[int]] = np.stack([np.count_nonzero(mask & known, axis=0) for mask in masks], axis=1).tolist()
    return [dict(zip(FLIPS, column, strict=True)) for column in columns]
