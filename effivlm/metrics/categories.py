"""Scores of a benchmark's parts: by category, by type, by length, and what is made of them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

Category = TypeVar("Category", bound=Hashable)


def grouped(scores: Sequence[float], categories: Sequence[Category]) -> dict[Category, list[float]]:
    """The scores of each category, in the order in which categories first occur.

    Raises ValueError where there are not as many categories as scores.
    """
    if len(scores) != len(categories):
        raise ValueError(f"{len(scores)} scores need as many categories, got {len(categories)}")
    found: dict[Category, list[float]] = {}
    for score, category in zip(scores, categories, strict=True):
        found.setdefault(category, []).append(score)
    return found


def means(scores: Sequence[float], categories: Sequence[Category]) -> dict[Category, float]:
    """Mean score of each category (ChartQA's human and augmented, MMMU's disciplines, VideoMME's lengths)."""
    return {category: sum(own) / len(own) for category, own in grouped(scores, categories).items()}


def mean_of_means(scores: Sequence[float], categories: Sequence[Hashable]) -> float:
    """Mean over categories of their means, each category with the same weight (MMStar, MVBench).

    Raises ValueError without scores.
    """
    if not scores:
        raise ValueError("the mean over categories needs at least one score, got none")
    own: Mapping[Hashable, float] = means(scores, categories)
    return sum(own.values()) / len(own)
