"""The rule of OCRBench: an answer is right if it contains the text that was asked for."""

from __future__ import annotations

from collections.abc import Sequence

from effivlm.metrics.profiles import FIXED, Profile, compat
from effivlm.metrics.references import nearest


def contains(prediction: str, references: Sequence[str], formula: bool = False, profile: Profile = FIXED) -> float:
    """1 if any reference stands in the answer, else 0 (arXiv 2305.07895); line breaks are blanks, and case does not count.

    In a `formula` (dataset HME100k) blanks do not count and case does, as the official script has it; `compat` lower-cases the
    answer and not the reference, which no formula with a capital letter can pass (34 of 100). Quirks of the rule: "2012"
    contains "12", and an empty reference is always right. Raises ValueError without references.
    """
    lowered = compat(profile) and formula
    return nearest(_formula_in if formula else _text_in, prediction.lower() if lowered else prediction, references)


def _text_in(prediction: str, reference: str) -> float:
    return float(_text(reference) in _text(prediction))


def _formula_in(prediction: str, reference: str) -> float:
    return float(_formula(reference) in _formula(prediction))


def _text(text: str) -> str:
    return text.lower().strip().replace("\n", " ")


def _formula(text: str) -> str:
    return text.strip().replace("\n", " ").replace(" ", "")
