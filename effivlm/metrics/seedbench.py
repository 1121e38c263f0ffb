"""SEED-Bench: multiple choice in twelve dimensions (arXiv 2307.16125)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from effivlm.metrics.choice import letter
from effivlm.metrics.profiles import FIXED, Profile, compat
from effivlm.metrics.references import nearest


def seedbench(
    prediction: str, references: Sequence[str], options: Mapping[str, str] | None = None, profile: Profile = FIXED
) -> float:
    """1 if the answer names the option of a reference (its letter), else 0.

    `compat` (lmms-eval's rule): the first character is the answer, case aside; so "Answer: B" is A and "(B)" is wrong.
    Raises ValueError without references.
    """
    if compat(profile):
        return nearest(lambda text, wanted: float(text[:1].lower() == wanted.lower().strip()), prediction, references)
    found = letter(prediction, "ABCD", options)
    return nearest(lambda _, wanted: float(found == wanted.strip().upper()), prediction, references)
