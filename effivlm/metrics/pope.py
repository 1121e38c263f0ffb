"""POPE: is an object in the picture, yes or no (arXiv 2305.10355)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from effivlm.metrics.profiles import FIXED, Profile, compat

_FIRST_WORD = re.compile(r"\W*(yes|no)\b")


@dataclass(frozen=True, slots=True)
class Pope:
    """POPE's five figures, each in [0, 1], and how many answers said neither yes nor no."""

    accuracy: float
    precision: float
    recall: float
    f1: float
    yes_ratio: float
    invalid: int


def pope_answer(prediction: str, profile: Profile = FIXED) -> str:
    """ "yes", "no", or "" for an answer that says neither: by its first word, or, in `compat`, the whole text."""
    text = prediction.lower().strip()
    if compat(profile):
        return text if text in ("yes", "no") else ""
    said = _FIRST_WORD.match(text)
    return said[1] if said else ""


def pope(predictions: Sequence[str], references: Sequence[str], profile: Profile = FIXED) -> Pope:
    """POPE's figures over answers and their references ("yes" or "no"); figures without a denominator are 0.

    An invalid answer is wrong: where the reference is yes it misses, and lowers recall. `compat` (lmms-eval's code) leaves it
    out of recall, and its yes ratio is that of the references. Raises ValueError for a reference that is neither word, and
    where there are not as many references as answers.
    """
    wanted = [reference.lower().strip() for reference in references]
    if len(wanted) != len(predictions) or not set(wanted) <= {"yes", "no"}:
        raise ValueError(
            f"{len(predictions)} answers need as many references yes or no, got {wanted[:5]} ({len(wanted)})"
        )
    said = [pope_answer(prediction, profile) for prediction in predictions]
    pairs = list(zip(said, wanted, strict=True))
    hits = pairs.count(("yes", "yes"))
    missed = pairs.count(("no", "yes")) + (0 if compat(profile) else pairs.count(("", "yes")))
    precision, recall = _share(hits, said.count("yes")), _share(hits, hits + missed)
    return Pope(
        accuracy=_share(hits + pairs.count(("no", "no")), len(pairs)),
        precision=precision,
        recall=recall,
        f1=_share(2 * precision * recall, precision + recall),
        yes_ratio=_share((wanted if compat(profile) else said).count("yes"), len(pairs)),
        invalid=said.count(""),
    )


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
