"""MMStar: multiple choice that needs the picture (arXiv 2403.20330)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from effivlm.metrics.choice import letter
from effivlm.metrics.profiles import FIXED, Profile, compat
from effivlm.metrics.references import nearest

_OPENINGS = ("", "(", "option ", "the answer is ")


def mmstar(
    prediction: str, references: Sequence[str], options: Mapping[str, str] | None = None, profile: Profile = FIXED
) -> float:
    """1 if the answer names the option of a reference (its letter), else 0; the benchmark's score is `mean_of_means` over
    the 18 second-level categories.

    `compat` (the rule MMStar published): the first character counts, or the one after "(", "option " or "the answer is "; so
    "Answer: B" is A, and "Because it is red" is B. Raises ValueError without references.
    """
    if compat(profile):
        return nearest(_opens_with, prediction, references)
    found = letter(prediction, "ABCD", options)
    return nearest(lambda _, reference: float(found == reference.strip().upper()), prediction, references)


def _opens_with(prediction: str, reference: str) -> float:
    text, wanted = (given.lower().strip().replace("\n", " ") for given in (prediction, reference))
    return float(
        any(text.startswith(start) and wanted == text[len(start) : len(start) + 1] != "" for start in _OPENINGS)
    )
