"""Exact match without case and punctuation, the score of GQA."""

from __future__ import annotations

import string
from collections.abc import Sequence

from effivlm.metrics.references import nearest

_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """1 if the answer is a reference, else 0; case and ASCII punctuation do not count, blanks and articles do.

    lmms-eval scores GQA (arXiv 1902.09506) so. Raises ValueError without references.
    """
    return nearest(lambda answer, reference: float(_plain(answer) == _plain(reference)), prediction, references)


def _plain(text: str) -> str:
    return text.lower().translate(_WITHOUT_PUNCTUATION)
