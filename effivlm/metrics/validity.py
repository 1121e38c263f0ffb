"""Whether an answer says anything that can be scored: an invalid one is wrong, and is counted apart from wrong ones."""

from __future__ import annotations

from collections.abc import Mapping

from effivlm.metrics import choice, mme, normalise

ANSWER_TYPES = ("choice", "yes_no", "number", "short", "ocr", "free")


def invalid(answer_type: str, text: str, options: Mapping[str, str] | None = None) -> bool:
    """Whether an answer names no single option, says neither yes nor no, holds no number, or (other types) is blank.

    The types are those of a task: choice, yes_no, number, short, ocr, free. A number may stand among words here, for then the
    answer is wrong, not mute. Raises ValueError for any other type.
    """
    if answer_type == "choice":
        return choice.invalid(text, options=options)
    if answer_type == "yes_no":
        return mme.yes_no(text) == "other"
    if answer_type == "number":
        return normalise.number(text) is None and not any(char.isdigit() for char in text)
    if answer_type not in ANSWER_TYPES:
        raise ValueError(f"answer type {answer_type!r} is not one of {', '.join(ANSWER_TYPES)}")
    return not text.strip()
