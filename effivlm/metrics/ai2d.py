"""AI2D: multiple choice over diagrams (arXiv 1603.07396)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from effivlm.metrics.choice import letter
from effivlm.metrics.exact import exact_match
from effivlm.metrics.profiles import FIXED, Profile, compat
from effivlm.metrics.references import nearest

_LEADING = re.compile(r"\s*([A-Z])\.")


def ai2d(
    prediction: str, references: Sequence[str], options: Mapping[str, str] | None = None, profile: Profile = FIXED
) -> float:
    """1 if the answer names the option of a reference (its letter), else 0.

    `compat` (lmms-eval's filter and exact match): a leading capital with a full stop is the answer, else the whole text is,
    case and punctuation aside; so "The answer is B" and "b. oak" are wrong. Raises ValueError without references.
    """
    if compat(profile):
        leading = _LEADING.match(prediction)
        return exact_match(leading[1] if leading else prediction, references)
    found = letter(prediction, options=options)
    return nearest(lambda _, reference: float(found == reference.strip().upper()), prediction, references)
