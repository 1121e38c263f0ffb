"""Yes or no, and pairs of questions about one image: the rules of MME (arXiv 2306.13394)."""

from __future__ import annotations

from collections.abc import Sequence


def yes_no(text: str) -> str:
    """What an answer says, "yes", "no" or "other", as the official script reads it.

    It looks into the first four characters, so "not sure", "know" and "nothing" are no; "I think yes" is other.
    `same` is stricter, lest such an accident count as agreement.
    """
    plain = text.lower().strip().replace(".", "")
    start = {"y": "yes", "n": "no"}.get(plain, plain[:4])
    return "yes" if "yes" in start else "no" if "no" in start else "other"


def pair(rights: Sequence[float]) -> list[float]:
    """What the questions about one image count, from whether each is right (0 or 1), in [0, 1].

    Half for being right, half for all of them being right, so that the mean over images is (accuracy + accuracy-plus) / 2:
    MME's score of a category divided by 200.
    """
    together = float(all(rights))
    return [(right + together) / 2 for right in rights]
