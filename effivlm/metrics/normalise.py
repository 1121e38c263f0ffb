"""Normal forms of short answers, as the official scorers define them."""

from __future__ import annotations

import re
import unicodedata

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_DIGITS_WITH_COMMAS = re.compile(r"\d,+\d")
DIGITS_WITH_COMMA = re.compile(r"\d,\d")
_STOP_WITHOUT_DIGIT = re.compile(r"\.(?!\d)")
_MOST_STOPS = 32  # the official code hands a flag (re.UNICODE, 32) to `sub` where the count belongs
_COUNTED = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBER_WORDS = {word: str(value) for value, word in enumerate(_COUNTED)}
_EVALAI_WORDS = {"none": "0", **NUMBER_WORDS}
_ARTICLES = frozenset({"a", "an", "the"})
_ENDINGS = {
    "n't": "ai are ca could did does do had has have is might must need ought sha should was were wo would",
    "'ve": "could might must not should they we what where who would you",
    "'d": "he how it someone something there they where who you",
    "'ll": "how it somebody someone something they what who why you",
    "'s": "he how somebody someone that there what when where who why",
    "'re": "there they what why you",
    "n't've": "could had might should would",
    "'d've": "he it she somebody someone something there they we who you y'all",
}
_OTHERS = "ma'am o'clock 'twas y'all y'all'll 'ow's'at"


def _contractions() -> dict[str, str]:
    """The official table: a contraction by each form that lacks one of its apostrophes.

    Entries with a capital (Im, Ive) are left out, for words are lower case by then; "somebody'd" loses its apostrophe there.
    """
    forms = [word + ending for ending, words in _ENDINGS.items() for word in words.split()] + _OTHERS.split()
    lacking = {form[:at] + form[at + 1 :]: form for form in forms for at, char in enumerate(form) if char == "'"}
    return {**lacking, "somebody'd": "somebodyd"}


_CONTRACTIONS = _contractions()


def evalai(text: str) -> str:
    """The answer normalisation of the VQA challenge (visualqa.org/evaluation), as mmf's EvalAI processor has it.

    "The Nokia." becomes "nokia", "none" becomes "0", "dont" becomes "don't"; an article alone becomes "".
    """
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    return evalai_words(punctuation(text.replace("\n", " ").replace("\t", " ").strip()))


def punctuation(text: str, numeric: re.Pattern[str] = _DIGITS_WITH_COMMAS) -> str:
    """The challenge's rule for punctuation: a mark goes if it stands beside a blank anywhere, or becomes a blank.

    All marks go where commas part two digits (`numeric`); full stops go unless a digit follows, the first 32 of them.
    """
    grouped = numeric.search(text) is not None
    cleaned = text
    for mark in _PUNCTUATION:
        if mark not in text:
            continue
        beside_blank = f"{mark} " in text or f" {mark}" in text
        cleaned = cleaned.replace(mark, "" if beside_blank or grouped else " ")
    return _STOP_WITHOUT_DIGIT.sub("", cleaned, count=_MOST_STOPS)


def evalai_words(text: str) -> str:
    """The challenge's rule for words: number words become digits, articles go, contractions get their apostrophe."""
    words = [_EVALAI_WORDS.get(word, word) for word in text.lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def number(text: str) -> float | None:
    """The number that the whole text writes, None if it writes none; "50%" is 0.5, "$1,000" is 1000."""
    bare = text.strip().replace(",", "").replace("$", "")
    percent = bare.endswith("%")
    try:
        value = float(bare.rstrip("%"))
    except ValueError:
        return None
    if value != value or value in (float("inf"), float("-inf")):
        return None
    return value / 100 if percent else value


def ocr(text: str) -> str:
    """Lower case, blanks collapsed, punctuation removed except between two digits ("3.50" is not "350")."""
    text = text.lower()
    kept = [
        char
        for place, char in enumerate(text)
        if not unicodedata.category(char).startswith("P")
        or (text[place - 1 : place].isdigit() and text[place + 1 : place + 2].isdigit())
    ]
    return " ".join("".join(kept).split())
