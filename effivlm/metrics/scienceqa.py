"""ScienceQA: multiple choice over school subjects (arXiv 2209.09513)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from effivlm.metrics.choice import letter
from effivlm.metrics.profiles import FIXED, Profile, compat
from effivlm.metrics.references import nearest


def scienceqa(
    prediction: str, references: Sequence[str], options: Mapping[str, str] | None = None, profile: Profile = FIXED
) -> float:
    """1 if the answer names the option of a reference (its letter), else 0.

    `compat` (lmms-eval's rule after LLaVA's): the whole text must be the letter, case aside. The fork means to take "B. text"
    too, but looks for a capital after lower-casing and never finds one. Raises ValueError without references.
    """
    if compat(profile):
        return nearest(lambda text, wanted: float(text.lower() == wanted.strip().lower()), prediction, references)
    found = letter(prediction, options=options)
    return nearest(lambda _, wanted: float(found == wanted.strip().upper()), prediction, references)
