"""MVBench: twenty kinds of multiple choice about short videos (arXiv 2311.17005)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from effivlm.metrics import normalise
from effivlm.metrics.choice import letter
from effivlm.metrics.profiles import FIXED, Profile, compat
from effivlm.metrics.references import nearest

_LEADING = re.compile(r"([A-E])\.\s*.+$", re.IGNORECASE)
_ALONE = re.compile(r"\b([A-E])\b", re.IGNORECASE)


def mvbench_letter(text: str, options: Mapping[str, str] | None = None, profile: Profile = FIXED) -> str:
    """The option that an answer names, "" if none (invalid).

    `compat`: the letter of "X. text", else the first letter A to E that stands alone, whatever its case, after the
    punctuation rule of VQA; so "B and A" is B, and "a dog" is A.
    """
    if not compat(profile):
        return letter(text, "ABCDE", options) or ""
    text = text.strip()
    leading = _LEADING.match(text)
    if leading:
        return leading[1].upper()
    plain = normalise.punctuation(text.replace("\n", " ").replace("\t", " ").strip(), normalise.DIGITS_WITH_COMMA)
    alone = _ALONE.search(plain.strip("'").strip('"').strip(")").strip("(").strip().lower())
    return alone[1].upper() if alone else ""


def mvbench(
    prediction: str, references: Sequence[str], options: Mapping[str, str] | None = None, profile: Profile = FIXED
) -> float:
    """1 if the answer names the option of a reference (its letter), else 0. Raises ValueError without references."""
    found = mvbench_letter(prediction, options, profile)
    return nearest(lambda _, reference: float(found == reference.strip().upper()), prediction, references)


def mvbench_accuracy(scores: Sequence[float], predictions: Sequence[str], profile: Profile = FIXED) -> float:
    """Mean score of one of the twenty tasks, in [0, 1]; the benchmark's is the mean over tasks (`categories.mean_of_means`).

    An empty answer is wrong; `compat` leaves it out of the mean, which flatters a model that says nothing. 0 without answers.
    Raises ValueError where there are not as many answers as scores.
    """
    if len(scores) != len(predictions):
        raise ValueError(f"{len(scores)} scores need as many answers, got {len(predictions)}")
    leaves = compat(profile)
    counted = [score for score, text in zip(scores, predictions, strict=True) if text or not leaves]
    return sum(counted) / len(counted) if counted else 0.0
