"""MMMU: college questions, multiple choice and open (arXiv 2311.16502; rules of MMMU-Benchmark/MMMU, eval_utils.py)."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence

from effivlm.metrics.choice import letter, lettered
from effivlm.metrics.profiles import FIXED, Profile, compat

_TAIL_AFTER = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_NO_ANSWER = frozenset(":,.!?;'")
_WITH_COMMAS = re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b")
_SCIENTIFIC = re.compile(r"-?(?<!\d)\d++(?:\.\d++)?[eE][+-]?\d+")
_SIMPLE = re.compile(r"-?(?:(?<!\d)\d++\.\d++|\.\d++|(?<!\d)\d++\b)(?![eE][+-]?\d)(?![,\d])")
_FORMS = (("({})", "({})"), ("{} ", " {} "), ("{}.", " {} "))  # what makes a candidate, and what places it among others
_FEW_WORDS = 5


def mmmu_letter(text: str, options: Sequence[str], profile: Profile = FIXED) -> str:
    """The option that an answer names, "" if none (invalid).

    `compat` (the official parser): the last "(X)", else the last "X ", else "X.", else in answers of more than five words the
    last option text. Where that finds none, the official code draws an option at random; here it is invalid in both profiles.
    """
    if not compat(profile):
        return letter(text, options=lettered(options)) or ""
    for mark in ",.!?;:'":
        text = text.strip(mark)
    text = f" {text} "
    marks = [chr(ord("A") + place) for place in range(len(options))]
    for form, placed in _FORMS:
        found = {text.rfind(placed.format(mark)): mark for mark in reversed(marks) if form.format(mark) in text}
        if found:
            return found[max(found)]
    lower = text.lower()
    if len(text.split()) <= _FEW_WORDS:
        return ""
    named = {lower.rfind(option.lower()): mark for mark, option in reversed([*zip(marks, options, strict=True)])}
    return named[max(named)] if max(named, default=-1) >= 0 else ""


def mmmu_choice(prediction: str, references: Sequence[str], options: Sequence[str], profile: Profile = FIXED) -> float:
    """1 if the answer names the option of a reference (its letter), else 0, as for an answer that names none.

    Raises ValueError without references.
    """
    _check(references)
    found = mmmu_letter(prediction.strip(), options, profile)
    return float(found in {reference.strip() for reference in references})


def mmmu_open(prediction: str, references: Sequence[str], profile: Profile = FIXED) -> float:
    """1 if a text reference stands in what the answer concludes, or a number in it equals one to two decimals; else 0.

    The conclusion is the shortest rest of a line after "is", "so", "answer" and their like. A reference may be a list written
    as text ("['24/7', '3.429']", three of the validation set): each of its items counts, where `compat` compares the whole
    text. Quirks of the rule: 0.001 equals 0.004, fractions are no numbers, "b" stands in "the letter b" and not in "bob".
    Raises ValueError without references.
    """
    _check(references)
    golds = list(references) if compat(profile) else [item for text in references for item in _items(text)]
    wanted = [form for gold in golds for form in _forms(gold)]
    said = _said(prediction.strip())
    return float(any(_agrees(form, wanted) for form in said))


def mmmu_invalid(prediction: str, options: Sequence[str] = ()) -> bool:
    """Whether an answer names no option or, for an open question (no options), is blank."""
    return not mmmu_letter(prediction, options) if options else not prediction.strip()


def _check(references: Sequence[str]) -> None:
    if not references:
        raise ValueError("an answer is scored against at least one reference, got none")


def _agrees(said: str | float, wanted: Sequence[str | float]) -> bool:
    if isinstance(said, str):
        return any(isinstance(want, str) and want in said for want in wanted)
    return said in wanted


def _items(reference: str) -> list[str]:
    if not reference.strip().startswith("["):
        return [reference]
    try:
        items = ast.literal_eval(reference.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return [reference]
    return [str(item) for item in items] if isinstance(items, list) and items else [reference]


def _said(text: str) -> set[str | float]:
    tails = _conclusions(text)
    numbers = [hit for tail in tails for form in (_WITH_COMMAS, _SCIENTIFIC, _SIMPLE) for hit in form.findall(tail)]
    return {form for part in (*tails, *numbers) for form in _forms(part)}


def _conclusions(text: str) -> list[str]:
    text = text.strip().strip(".").lower()
    lines = text.split("\n")
    found = []
    for place, line in enumerate(lines):
        shortest = ""
        for word in (*_TAIL_AFTER, "=") if place == len(lines) - 1 else _TAIL_AFTER:
            if word in line:
                tail = line.rpartition(word)[2].strip()
                shortest = tail if not shortest or len(tail) < len(shortest) else shortest
        if shortest and shortest not in _NO_ANSWER:
            found.append(shortest)
    return found or [text]


def _forms(text: str) -> list[str | float]:
    """A number to two decimals, or lower-case text; one letter in two forms, each with a blank beside it."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
    return [f" {text}", f"{text} "] if len(text) == 1 else [text]


DISCIPLINES: Mapping[str, str] = {
    subject: discipline
    for discipline, subjects in {
        "Art and Design": "Art Art_Theory Design Music",
        "Business": "Accounting Economics Finance Manage Marketing",
        "Science": "Biology Chemistry Geography Math Physics",
        "Health and Medicine": "Basic_Medical_Science Clinical_Medicine Diagnostics_and_Laboratory_Medicine Pharmacy "
        "Public_Health",
        "Humanities and Social Science": "History Literature Sociology Psychology",
        "Tech and Engineering": "Agriculture Architecture_and_Engineering Computer_Science Electronics Energy_and_Power "
        "Materials Mechanical_Engineering",
    }.items()
    for subject in subjects.split()
}
