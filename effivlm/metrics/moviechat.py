"""MovieChat-1K: a judge's verdict and mark of an answer about a long video (arXiv 2307.16449)."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass

from effivlm.metrics.profiles import FIXED, Profile, compat

_LONGEST = 10_000  # characters of a reply that is read; a dictionary with two entries has some forty
_BEST = 5


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a judge calls an answer right, and its mark, a whole number from 0 to 5."""

    right: bool
    mark: int


def moviechat_verdict(reply: str, profile: Profile = FIXED) -> Verdict | None:
    """The verdict of a reply such as {'pred': 'yes', 'score': 4}; None (missing) where it is no dictionary.

    As in the official code the mark is cut to a whole number, a missing mark is 0, and "yes" alone is right, in small letters.
    A mark out of range or without a number is missing here; `compat` takes any, and a reply that cannot be read is a wrong
    answer with mark 0.
    """
    review = _dictionary(reply)
    if review is None:
        return Verdict(right=False, mark=0) if compat(profile) else None
    right = str(review.get("pred", "no")) == "yes"
    mark = _whole(review.get("score", 0))
    if compat(profile):
        return Verdict(right, mark or 0)
    return Verdict(right, mark) if mark is not None and 0 <= mark <= _BEST else None


def _dictionary(reply: str) -> Mapping[object, object] | None:
    try:
        review = ast.literal_eval(reply) if len(reply) <= _LONGEST else None
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    return review if isinstance(review, dict) else None


def _whole(mark: object) -> int | None:
    if not isinstance(mark, int | float | str):
        return None
    try:
        return int(mark)
    except (ValueError, OverflowError):
        return None
