"""VQA accuracy, the score of TextVQA, for one answer."""

from __future__ import annotations

from collections.abc import Sequence

from effivlm.metrics import normalise

AGREEING = 3


def vqa_accuracy(prediction: str, references: Sequence[str]) -> float:
    """Share of people who gave this answer, full from three on, as visualqa.org/evaluation defines it.

    Each person is left out in turn, and min(1, agreeing others / 3) is averaged: of ten, agreeing 0, 1, 2, 3, 4 score 0, 0.3,
    0.6, 0.9, 1. All answers are normalised by `normalise.evalai`, so an article alone is the empty answer.
    Raises ValueError without references.
    """
    if not references:
        raise ValueError("VQA accuracy needs the answers of people, got none")
    answer = normalise.evalai(prediction)
    agree = [normalise.evalai(reference) == answer for reference in references]
    return sum(min(1.0, (sum(agree) - one) / AGREEING) for one in agree) / len(agree)
