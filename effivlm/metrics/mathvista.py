"""MathVista: mathematics in pictures (arXiv 2310.02255; rules of lupantech/MathVista, evaluation/)."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass

from rapidfuzz.distance import Levenshtein

from effivlm.metrics.choice import letter, lettered
from effivlm.metrics.profiles import FIXED, Profile, compat

_QUOTED = re.compile(r'The answer is "(.*)"\.')
_MARKED = re.compile(r"\(([a-zA-Z])\)")
_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_CONCLUDED = re.compile(r"\banswer(?:\s++is\b|\s*+:)\s*+:?\s*+(.+)", re.IGNORECASE)
_FRACTION = re.compile(r"\\[dt]?frac\s*\{(\d+)\}\s*\{(\d+)\}")
_NUMBER = re.compile(r"(?<![\w.])-?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+)?(?:\s*/\s*\d+(?!\d|\.\d))?")
_LIST = re.compile(r"\[[^\[\]]*\]")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_NEAR = 0.5  # an answer that shares less than half with every choice names none


@dataclass(frozen=True, slots=True)
class Problem:
    """How a question is answered: `question_type` is multi_choice or free_form, `answer_type` text, integer, float or list.

    `precision` counts decimals; the published data hold it as a float (1.0).
    """

    question_type: str
    answer_type: str
    choices: Sequence[str] = ()
    precision: float | None = None


def mathvista_direct(text: str, problem: Problem, quoted: bool = False, profile: Profile = FIXED) -> str | None:
    """The answer where the official code needs no judge to find it, in both profiles; None where it asks one.

    That is a text that is a choice, or the number asked for and nothing else; with `quoted` also what stands in 'The answer is
    "14".'. A blank text is "" (invalid).
    """
    compat(profile)
    text = text.strip()
    if not text or (problem.question_type == "multi_choice" and text in problem.choices):
        return text
    kinds = {"integer": int, "float": float}
    if problem.answer_type in kinds:
        try:
            return str(kinds[problem.answer_type](text))
        except ValueError:
            pass  # a number with words around it: found below, or by a judge
    found = _QUOTED.search(text) if quoted else None
    return found[1] if found else None


def mathvista_rule(text: str, problem: Problem) -> str:
    """The answer that a rule finds in place of the judge, "" if none (invalid): an own definition, the proxy `rule-extract`.

    It looks into the last \\boxed{}, else what follows the last "answer is" or "answer:", else the last sentence: for the letter
    of a choice (then in the whole text), the last number, or the last list.
    """
    direct = mathvista_direct(text, problem)
    if direct is not None:
        return direct
    if problem.question_type == "multi_choice":
        options = lettered(problem.choices)
        return next((mark for part in (_conclusion(text), text) if (mark := letter(part, options=options))), "")
    if problem.answer_type == "list":
        lists = _LIST.findall(text)
        return str(lists[-1]) if lists else ""
    conclusion = _conclusion(text)
    return _last_number(conclusion) if problem.answer_type in ("integer", "float") else conclusion


def mathvista_normalised(extraction: str, problem: Problem, profile: Profile = FIXED) -> str | None:
    """What an extracted answer says in the form of the reference; None if nothing (invalid).

    A choice becomes its text, by letter or as the nearest one by edit distance; an integer is cut, a float rounded to
    `precision`. `compat` takes the nearest choice however far, so that a blank answer is the shortest choice, knows no small
    letters, and fails every float whose precision is a float (all 40 of testmini).
    """
    if problem.question_type == "multi_choice":
        return _choice(extraction.strip(), problem.choices, compat(profile))
    if not compat(profile) and not extraction.strip():
        return None
    if problem.answer_type not in ("integer", "float"):
        return extraction
    try:
        value = float(extraction)
        if problem.answer_type == "integer":
            return str(int(value))
        return _rounded(value, problem.precision, compat(profile))
    except (ValueError, OverflowError):
        return None


def mathvista(extraction: str, reference: str, problem: Problem, profile: Profile = FIXED) -> float:
    """1 if the extracted answer, in the form of the reference, is the reference, else 0.

    Texts must be equal up to outer blanks; floats and lists are also right by value, so "[2014,2016]" is [2014, 2016].
    `compat` compares texts alone.
    """
    said = mathvista_normalised(extraction, problem, profile)
    if said is None:
        return float(compat(profile) and reference.strip() == "None")
    if said.strip() == reference.strip():
        return 1.0
    if compat(profile) or problem.answer_type not in ("float", "list"):
        return 0.0
    value = _literal(said)
    return float(value is not None and value == _literal(reference))


def _choice(extraction: str, choices: Sequence[str], official: bool) -> str | None:
    if not choices or not (official or extraction):
        return None
    marks = [chr(ord("A") + place) for place in range(len(choices))]
    marked = _MARKED.findall(extraction)
    named = marked[0].upper() if marked else extraction
    if not official and named not in marks and named not in choices:
        named = letter(extraction, options=lettered(choices)) or named
    if named in marks:
        return choices[marks.index(named)]
    near = min(choices, key=lambda choice: Levenshtein.distance(named, choice))
    return near if official or Levenshtein.normalized_similarity(named, near) >= _NEAR else None


def _rounded(value: float, precision: float | None, official: bool) -> str | None:
    if precision is None:
        return str(round(value)) if official else str(value)
    if official and not isinstance(precision, int):
        return None
    return str(round(value, int(precision)))


def _literal(text: str) -> object:
    """A number, or a list or tuple of numbers and texts as a list; None for anything else."""
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    if isinstance(value, list | tuple):
        return list(value)
    return value if isinstance(value, int | float) else None


def _conclusion(text: str) -> str:
    for pattern in (_BOXED, _CONCLUDED):
        found = pattern.findall(text)
        if found:
            return str(found[-1]).strip()
    parts = [part for part in _SENTENCE.split(text.strip()) if part.strip()]
    return parts[-1].strip() if parts else ""


def _last_number(text: str) -> str:
    """The last number, without commas and units; a fraction by its value."""
    numbers = _NUMBER.findall(_FRACTION.sub(r" \1/\2", text.replace("$", " ")))
    if not numbers:
        return ""
    above, _, below = numbers[-1].replace(",", "").partition("/")
    return above if not below else str(float(above) / float(below)) if float(below) else ""
