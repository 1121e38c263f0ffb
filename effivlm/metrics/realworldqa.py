"""RealWorldQA: short questions about photographs, some with options (x.ai, Grok-1.5 Vision)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from effivlm.metrics.choice import LETTERS, letter, listed_options
from effivlm.metrics.exact import exact_match
from effivlm.metrics.normalise import NUMBER_WORDS
from effivlm.metrics.profiles import FIXED, Profile, compat
from effivlm.metrics.references import nearest

_OPTION = re.compile(r"\b[A-Z]\.\s+([^\n]*)")
_NEITHER_WORD_NOR_BLANK = re.compile(r"[^\w\s]")


def realworldqa(prediction: str, references: Sequence[str], question: str, profile: Profile = FIXED) -> float:
    """1 if the answer is a reference, else 0; `question` is the benchmark's, with its options ("A. Left") if it has any.

    A reference that is a letter is compared with the option that the answer names, by letter or by text; for others
    punctuation does not count and number words are digits. `compat` (the fork's filters): only a bare number word is a digit
    ("two." is none), the first option text inside the answer is its letter, with case and within words, and the whole answer
    must match, so "Answer: A" is wrong. Raises ValueError without references.
    """
    if compat(profile):
        return exact_match(_filtered(prediction.strip(), question), references)
    options = listed_options(question)
    found = letter(prediction, options=options)
    words = _NEITHER_WORD_NOR_BLANK.sub("", prediction).strip()
    short = NUMBER_WORDS.get(words.lower(), words)

    def right(_: str, reference: str) -> float:
        wanted = reference.strip()
        return float(found == wanted.upper()) if _is_letter(wanted) else exact_match(short, [wanted])

    return nearest(right, prediction, references)


def _is_letter(reference: str) -> bool:
    return len(reference) == 1 and reference.upper() in LETTERS


def _filtered(text: str, question: str) -> str:
    text = _NEITHER_WORD_NOR_BLANK.sub("", NUMBER_WORDS.get(text.lower(), text)).strip()
    options = [option.strip() for option in _OPTION.findall(question)]
    marks = {option: chr(ord("A") + place) for place, option in enumerate(options)}  # a repeated text: its last letter
    hits = [(at, place) for place, option in enumerate(options) if (at := text.find(option)) >= 0]
    return marks[options[min(hits)[1]]] if hits else text
