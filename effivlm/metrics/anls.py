"""Average normalised Levenshtein similarity (ANLS), the score of DocVQA, for one answer."""

from __future__ import annotations

from collections.abc import Sequence

from rapidfuzz.distance import Levenshtein

THRESHOLD = 0.5


def anls(prediction: str, references: Sequence[str]) -> float:
    """Similarity in [0, 1] of an answer to the nearest reference; under 0.5 counts as 0.

    Case, outer blanks and runs of blanks do not count in the distance, but the length it is divided by is that of the
    strings as given: a quirk of the official script (rrc.cvc.uab.es, DocVQA) that published scores contain.
    Raises ValueError without references.
    """
    if not references:
        raise ValueError("ANLS needs at least one reference, got none")
    prediction = prediction.strip()
    similarity = 1.0 - min(_distance(prediction, reference) for reference in references)
    return similarity if similarity >= THRESHOLD else 0.0


def _distance(prediction: str, reference: str) -> float:
    longest = max(len(prediction), len(reference))
    return Levenshtein.distance(_plain(prediction), _plain(reference)) / longest if longest else 0.0


def _plain(text: str) -> str:
    return " ".join(text.lower().split())
