"""When two answers count as the same: the notion behind loyalty (OL), an own definition by answer type."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

from effivlm.metrics import choice, normalise

TOLERANCE = (
    1e-6  # relative; a scorer's wider tolerance forgives errors of measurement against the reference, not of identity
)


def same(answer_type: str, text: str, dense_text: str, options: Mapping[str, str] | None = None) -> bool:
    """Whether a compressed model's answer is the dense model's answer, whatever the reference says.

    `answer_type` is choice, yes_no, number, short or ocr; `options` (letter to text) lets a choice be named by its
    text. ValueError for any other type; "free" has no exact notion, so its loyalty is graded elsewhere and never mixed
    in.
    """
    if answer_type == "free":
        raise ValueError("answer type 'free' has no exact notion of the same answer: compare scores or ROUGE-L instead")
    if answer_type == "choice":
        return _same_label(lambda answer: choice.letter(answer, options=options), text, dense_text)
    if answer_type not in _RULES:
        raise ValueError(f"answer type {answer_type!r} is not one of choice, {', '.join(_RULES)}, free")
    return _RULES[answer_type](text, dense_text)


def _same_label(label: Callable[[str], str | None], text: str, dense_text: str) -> bool:
    """Labels equal; without a label on both sides the texts decide, and a label never equals a failure to give one."""
    found, dense = label(text), label(dense_text)
    return found == dense if found or dense else _same_short(text, dense_text)


def _yes_no(text: str) -> str | None:
    first = re.match(r"\W*(yes|no)\b", text.lower())
    return first[1] if first else None


def _same_yes_no(text: str, dense_text: str) -> bool:
    return _same_label(_yes_no, text, dense_text)


def _same_number(text: str, dense_text: str) -> bool:
    value, dense = normalise.number(text), normalise.number(dense_text)
    if value is None or dense is None:
        return _same_short(text, dense_text)
    return math.isclose(value, dense, rel_tol=TOLERANCE, abs_tol=0.0)


def _same_short(text: str, dense_text: str) -> bool:
    return _equal(normalise.evalai, text, dense_text)


def _same_ocr(text: str, dense_text: str) -> bool:
    return _equal(normalise.ocr, text, dense_text)


def _equal(form: Callable[[str], str], text: str, dense_text: str) -> bool:
    """Equal normal forms; where nothing is left of either, the words as written, so that "the the" is not ""."""
    left, right = form(text), form(dense_text)
    return left == right if left or right else text.lower().split() == dense_text.lower().split()


_RULES: Mapping[str, Callable[[str, str], bool]] = {
    "yes_no": _same_yes_no,
    "number": _same_number,
    "short": _same_short,
    "ocr": _same_ocr,
}
