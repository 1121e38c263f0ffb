"""When two answers count as the same: the notion behind loyalty (OL), an own definition by answer type."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

from effivlm.metrics import choice, normalise

TOLERANCE = (
    1e-6  # relative; a scorer's wider tolerance forgives errors of measurement against the reference, not of identity
)
TYPES = ("choice", "yes_no", "number", "short", "ocr", "free")
CLOSED = ("choice", "yes_no")  # types with a fixed set of answers, of which some agree by chance


def same(answer_type: str, text: str, dense_text: str, options: Mapping[str, str] | None = None) -> bool:
    """Whether a compressed model's answer is the dense model's answer, whatever the reference says.

    `answer_type` is choice, yes_no, number, short or ocr; `options` (letter to text) lets a choice be named by its
    text. ValueError for any other type; "free" has no exact notion, so its loyalty is graded elsewhere and never mixed
    in.
    """
    if answer_type == "number":
        value, dense = normalise.number(text), normalise.number(dense_text)
        if value is not None and dense is not None:
            return math.isclose(value, dense, rel_tol=TOLERANCE, abs_tol=0.0)
        answer_type = "short"
    return label(answer_type, text, options) == label(answer_type, dense_text, options)


def label(answer_type: str, text: str, options: Mapping[str, str] | None = None) -> str:
    """What an answer says, as one string: two answers are `same` if and only if their labels are equal.

    The option or word for choice and yes_no; an answer that names none is its text, so two failures to answer are the
    same only if they read the same. ValueError for number and free, whose sameness is no equality of strings.
    """
    if answer_type == "free":
        raise ValueError("answer type 'free' has no exact notion of the same answer: compare scores or ROUGE-L instead")
    if answer_type == "choice":
        return choice.letter(text, options=options) or _unlabelled(text)
    if answer_type not in _LABELS:
        raise ValueError(f"answer type {answer_type!r} is not one of choice, {', '.join(_LABELS)}, number, free")
    return _LABELS[answer_type](text)


def _yes_no(text: str) -> str:
    first = re.match(r"\W*(yes|no)\b", text.lower())
    return first[1] if first else _unlabelled(text)


def _unlabelled(text: str) -> str:
    """Apart from every label: no option or word begins with a blank."""
    return f" {_short(text)}"


def _short(text: str) -> str:
    return _form(normalise.evalai, text)


def _ocr(text: str) -> str:
    return _form(normalise.ocr, text)


def _form(normal: Callable[[str], str], text: str) -> str:
    """The normal form; where nothing is left of an answer, the words as written, so that "the the" is not ""."""
    return normal(text) or f" {' '.join(text.lower().split())}"


_LABELS: Mapping[str, Callable[[str], str]] = {"yes_no": _yes_no, "short": _short, "ocr": _ocr}
