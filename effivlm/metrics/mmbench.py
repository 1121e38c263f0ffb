"""MMBench, English and Chinese: multiple choice asked in every rotation of its options (arXiv 2307.06281)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from effivlm.metrics.choice import letter
from effivlm.metrics.profiles import FIXED, Profile, compat

ROTATION = 1_000_000  # rows whose index differs by a multiple of it ask one question with rotated options
_LEGAL = "ABCDE"
_MANY_WORDS = 3
_FORMS = ("{}.", "{},", "{}:", "{})", "{}).", "({})", "({}).", ":{}", ":{},", ":{}.", ":{})", ":{}).")


def mmbench_letter(text: str, options: Mapping[str, str], profile: Profile = FIXED) -> str:
    """The option that an answer names, "" if none (invalid, where the official code asks a judge and then draws).

    `compat` (`can_infer`): the only word that is a letter, unless "A" stands among more than three words; else the only one in
    a form as "X.", "(X)", ":X"; else the only option whose text occurs, also within a word, case aside.
    """
    if not compat(profile):
        return letter(text, options=options) or ""
    words = set(text.split())
    bare = [mark for mark in _LEGAL if mark in words]
    if len(bare) == 1 and not ("A" in words and len(text.split()) > _MANY_WORDS):
        return bare[0]
    for form in _FORMS:
        found = [mark for mark in _LEGAL if form.format(mark) in words]
        if len(found) == 1:
            return found[0]
    named = [mark for mark, option in options.items() if option.lower() in text.lower()]
    return named[0] if len(named) == 1 else ""


def mmbench_questions(indices: Sequence[int], rights: Sequence[float], profile: Profile = FIXED) -> dict[int, float]:
    """Whether each question is right: 1 where all of its rows are, else 0; rows belong together by index mod 1,000,000.

    `compat` knows only questions whose unrotated row (index under 1,000,000) is there. Raises ValueError where there are
    not as many indices as rows, or where one occurs twice.
    """
    if len(indices) != len(rights) or len(set(indices)) != len(indices):
        raise ValueError(
            f"{len(rights)} rows need as many indices, each once, got {len(indices)} ({len(set(indices))} distinct)"
        )
    every: dict[int, float] = {}
    for index, right in zip(indices, rights, strict=True):
        question = index % ROTATION
        every[question] = float(bool(right) and every.get(question, 1.0) == 1.0)
    present = set(indices)
    return {question: right for question, right in every.items() if question in present or not compat(profile)}


def mmbench(indices: Sequence[int], rights: Sequence[float], profile: Profile = FIXED) -> float:
    """CircularEval's score in [0, 1]: the mean over questions, not over rows. Raises ValueError without a question."""
    questions = mmbench_questions(indices, rights, profile)
    if not questions:
        raise ValueError("MMBench's score needs at least one question, got none")
    return sum(questions.values()) / len(questions)
