"""Average normalised Levenshtein similarity (ANLS) of one answer, as DocVQA, InfoVQA and MP-DocVQA define it."""

from __future__ import annotations

from collections.abc import Sequence

from rapidfuzz.distance import Levenshtein

from effivlm.metrics.profiles import FIXED, Profile, compat
from effivlm.metrics.references import nearest

THRESHOLD = 0.5
_UNANSWERED = ("", "none")


def anls(prediction: str, references: Sequence[str], profile: Profile = FIXED) -> float:
    """Similarity in [0, 1] of an answer to the nearest reference; under 0.5 counts as 0. DocVQA's and InfoVQA's score.

    Case, outer blanks and runs of blanks do not count in the distance, but the length it is divided by is that of the
    upper-cased strings as given ("Weiß" is five long): a quirk of the official script (rrc.cvc.uab.es) that published scores
    contain. Both profiles do this. Raises ValueError without references.
    """
    compat(profile)
    return _kept(nearest(_similarity, prediction, references))


def anls_pages(prediction: str, references: Sequence[str], profile: Profile = FIXED) -> float:
    """The variant of MP-DocVQA (rubenpt91/MP-DocVQA-Framework): blanks inside count, and two answers are always wrong.

    These two are the empty one and "none", whatever the reference says. Both profiles do this. Raises ValueError without
    references.
    """
    compat(profile)
    similarity = nearest(_similarity_of_pages, prediction, references)
    return 0.0 if _bare(prediction) in _UNANSWERED else _kept(similarity)


def accuracy_pages(prediction: str, references: Sequence[str], profile: Profile = FIXED) -> float:
    """MP-DocVQA's second score: 1 if the answer is a reference, case and outer blanks aside; "none" is always wrong.

    The empty answer is right where a reference is empty, though its ANLS is 0. Both profiles do this. Raises ValueError
    without references.
    """
    compat(profile)
    right = nearest(lambda answer, reference: float(_bare(answer) == _bare(reference)), prediction, references)
    return 0.0 if _bare(prediction) == "none" else right


def _kept(similarity: float) -> float:
    return similarity if similarity >= THRESHOLD else 0.0


def _similarity(prediction: str, reference: str) -> float:
    return _share(_plain(prediction), _plain(reference), max(len(prediction.upper()), len(reference.upper())))


def _similarity_of_pages(prediction: str, reference: str) -> float:
    left, right = _bare(prediction), _bare(reference)
    return _share(left, right, max(len(left), len(right)))


def _share(left: str, right: str, longest: int) -> float:
    return 1.0 - Levenshtein.distance(left, right) / longest if longest else 1.0


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def _bare(text: str) -> str:
    return text.lower().strip()
