"""Exact match without case and punctuation, the score of GQA."""

from __future__ import annotations

import string
from collections.abc import Sequence

from effivlm.metrics.profiles import FIXED, Profile, compat
from effivlm.metrics.references import nearest

_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact_match(prediction: str, references: Sequence[str], profile: Profile = FIXED) -> float:
    """1 if the answer is a reference, else 0; case and ASCII punctuation do not count, blanks and articles do.

    lmms-eval scores GQA (arXiv 1902.09506) so, in both profiles. Raises ValueError without references.
    """
    compat(profile)
    return nearest(lambda answer, reference: float(plain(answer) == plain(reference)), prediction, references)


def plain(text: str) -> str:
    """Lower case without ASCII punctuation; blanks stay as they are."""
    return text.lower().translate(_WITHOUT_PUNCTUATION)
