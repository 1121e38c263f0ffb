"""Relaxed accuracy, the score of ChartQA, for one answer."""

from __future__ import annotations

from collections.abc import Sequence

from effivlm.metrics.profiles import FIXED, Profile, compat
from effivlm.metrics.references import nearest

TOLERANCE = 0.05


def relaxed_accuracy(prediction: str, references: Sequence[str], profile: Profile = FIXED) -> float:
    """1 for a number within 5 % of the reference or for the same words, case aside; else 0 (arXiv 2203.10244).

    Published scores contain these quirks of the official rule: a reference of 0 is compared as text, years are numbers (2019 is
    right for 2010), "50%" is 0.5 and so wrong for 50, and "1,000" and "$5" are words. Both profiles do this. ChartQA reports it
    overall and for its human and augmented questions: `categories.means`. Raises ValueError without references.
    """
    compat(profile)
    return nearest(_right, prediction, references)


def _right(prediction: str, reference: str) -> float:
    value, target = _number(prediction), _number(reference)
    if value is not None and target:
        return float(abs(value - target) / abs(target) <= TOLERANCE)
    return float(prediction.lower() == reference.lower())


def _number(text: str) -> float | None:
    """What Python reads as a float; narrower than `normalise.number`, which forgives how a number is written."""
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None
