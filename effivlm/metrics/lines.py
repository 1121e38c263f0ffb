"""Line F1: how much of a text of several lines an answer gives. An own definition, without an official script."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rapidfuzz.distance import Levenshtein
from scipy.optimize import linear_sum_assignment

from effivlm.metrics.references import nearest
from effivlm.metrics.statistics import Floats

THRESHOLD = 0.8


def line_f1(prediction: str, references: Sequence[str]) -> float:
    """F1 in [0, 1] of the lines of an answer against those of the nearest reference; their order does not count.

    Lines are lower-cased, runs of blanks collapsed, empty lines dropped. Each line of the answer is paired with at most one of
    the reference so that the sum of the pairs' normalised Levenshtein similarities is largest, those under 0.8 counting
    as 0: lines of one pattern ("a red circle is left of ...") resemble each other, so that at 0.5 the list of another picture
    still scores 0.46, at 0.8 it scores 0.12. Precision is that sum divided by the lines of the answer, recall by those
    of the reference. An answer without lines scores 0. Raises ValueError without references.
    """
    return nearest(_f1, prediction, references)


def _f1(prediction: str, reference: str) -> float:
    given, wanted = _lines(prediction), _lines(reference)
    if not given or not wanted:
        return 0.0
    similarity = np.array([[_similarity(line, other) for other in wanted] for line in given])
    return 2 * best_total(similarity) / (len(given) + len(wanted))


def _lines(text: str) -> list[str]:
    return [plain for line in text.lower().splitlines() if (plain := " ".join(line.split()))]


def _similarity(line: str, other: str) -> float:
    similarity = Levenshtein.normalized_similarity(line, other)
    return similarity if similarity >= THRESHOLD else 0.0


def best_total(values: Floats) -> float:
    """Largest sum of values [rows, columns] with at most one per row and column."""
    return float(values[linear_sum_assignment(values, maximize=True)].sum())
