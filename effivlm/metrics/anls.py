"""Average normalised Levenshtein similarity (ANLS) of one answer, as DocVQA and MP-DocVQA define it."""

from __future__ import annotations

from collections.abc import Sequence

from rapidfuzz.distance import Levenshtein

from effivlm.metrics.references import nearest

THRESHOLD = 0.5


def anls(prediction: str, references: Sequence[str]) -> float:
    """Similarity in [0, 1] of an answer to the nearest reference; under 0.5 counts as 0.

    Case, outer blanks and runs of blanks do not count in the distance, but the length it is divided by is that of the
    strings as given: a quirk of the official script (rrc.cvc.uab.es, DocVQA) that published scores contain.
    Raises ValueError without references.
    """
    return _kept(nearest(_similarity, prediction, references))


def anls_pages(prediction: str, references: Sequence[str]) -> float:
    """The variant of MP-DocVQA (rubenpt91/MP-DocVQA-Framework): blanks inside count, and two answers are always wrong.

    These two are the empty one and "none", whatever the reference says. Raises ValueError without references.
    """
    similarity = nearest(_similarity_of_pages, prediction, references)
    return 0.0 if prediction.strip().lower() in ("", "none") else _kept(similarity)


def _kept(similarity: float) -> float:
    return similarity if similarity >= THRESHOLD else 0.0


def _similarity(prediction: str, reference: str) -> float:
    return _share(_plain(prediction), _plain(reference), max(len(prediction), len(reference)))


def _similarity_of_pages(prediction: str, reference: str) -> float:
    left, right = prediction.strip().lower(), reference.strip().lower()
    return _share(left, right, max(len(left), len(right)))


def _share(left: str, right: str, longest: int) -> float:
    return 1.0 - Levenshtein.distance(left, right) / longest if longest else 1.0


def _plain(text: str) -> str:
    return " ".join(text.lower().split())
