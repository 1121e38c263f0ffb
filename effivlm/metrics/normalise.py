"""Normal forms of short answers, as the official scorers define them."""

from __future__ import annotations

import re
import unicodedata

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_DIGIT_COMMA_DIGIT = re.compile(r"\d,\d")
_STOP_WITHOUT_DIGIT = re.compile(r"\.(?!\d)")
_COUNTED = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBER_WORDS = {"none": "0", **{word: str(value) for value, word in enumerate(_COUNTED)}}
_ARTICLES = frozenset({"a", "an", "the"})
_NEGATED = "ai are ca could did does do had has have is might must need sha should was wo would were"
_WITH_HAVE = "could might must should would they we you i who"
_WITH_WILL = "it that there they this what who you how"
_WITH_IS = "he that there what where who how when why she somebody someone something everyone"
_WITH_WOULD = "it that there they who you he how somebody"


def _contractions() -> dict[str, str]:
    """Contractions by their form without apostrophe; forms that are words themselves (its, well, were) are left out."""
    forms = [f"{word}n't" for word in _NEGATED.split()]
    for words, ending in ((_WITH_HAVE, "'ve"), (_WITH_WILL, "'ll"), (_WITH_IS, "'s"), (_WITH_WOULD, "'d")):
        forms += [word + ending for word in words.split()]
    forms += ["i'm", "they're", "you're", "what're", "who're", "let's", "o'clock", "ma'am", "y'all", "'tis", "'twas"]
    return {form.replace("'", ""): form for form in forms}


_CONTRACTIONS = _contractions()


def evalai(text: str) -> str:
    """The answer normalisation of the VQA challenge (visualqa.org/evaluation): case, punctuation, articles, number
    words.

    "The Nokia." becomes "nokia", "none" becomes "0", "dont" becomes "don't"; an article alone becomes "".
    """
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    text = text.replace("\n", " ").replace("\t", " ").strip()
    cleaned = text
    for mark in _PUNCTUATION:
        beside_blank = f"{mark} " in text or f" {mark}" in text
        cleaned = cleaned.replace(mark, "" if beside_blank or _DIGIT_COMMA_DIGIT.search(text) else " ")
    cleaned = _STOP_WITHOUT_DIGIT.sub("", cleaned)
    words = [_NUMBER_WORDS.get(word, word) for word in cleaned.split()]
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
