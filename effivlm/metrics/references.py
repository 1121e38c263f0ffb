"""Answers that have several accepted references."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def nearest(score: Callable[[str, str], float], prediction: str, references: Sequence[str]) -> float:
    """The best `score(prediction, reference)`; outer blanks of the prediction do not count.

    Raises ValueError without references.
    """
    if not references:
        raise ValueError("an answer is scored against at least one reference, got none")
    prediction = prediction.strip()
    return max(score(prediction, reference) for reference in references)
