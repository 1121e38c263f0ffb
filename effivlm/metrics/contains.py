"""The rule of OCRBench: an answer is right if it contains the text that was asked for."""

from __future__ import annotations

from collections.abc import Sequence

from effivlm.metrics.references import nearest


def contains(prediction: str, references: Sequence[str], formula: bool = False) -> float:
    """1 if any reference stands in the answer, else 0 (arXiv 2305.07895); line breaks are blanks, and case does not count.

    In a `formula` blanks do not count and case does, as the official script has it; the fork of EffiVLM-Bench lower-cases the
    answer and not the reference, which no formula with a capital letter can pass. Quirks of the rule: "2012" contains
    "12", and an empty reference is always right. Raises ValueError without references.
    """
    return nearest(_formula_in if formula else _text_in, prediction, references)


def _text_in(prediction: str, reference: str) -> float:
    return float(_text(reference) in _text(prediction))


def _formula_in(prediction: str, reference: str) -> float:
    return float(_formula(reference) in _formula(prediction))


def _text(text: str) -> str:
    return text.lower().strip().replace("\n", " ")


def _formula(text: str) -> str:
    return text.strip().replace("\n", " ").replace(" ", "")
