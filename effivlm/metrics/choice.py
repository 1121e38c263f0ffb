"""Which option an answer to a multiple-choice question names."""

from __future__ import annotations

import re
from collections.abc import Mapping

_MARKUP = re.compile(r"[*_`\"“”]+")
_NAMED = re.compile(r"(?:answer|option|choice)\s*(?:is\b)?\s*:?\s*(?:\(([A-Za-z])\)|([A-Z])\b)", re.IGNORECASE)
_BRACKETED = re.compile(r"\(([A-Za-z])\)")
_LEADING = re.compile(r"\(?([A-Za-z])[.):](?=\s|$)")
_ALONE = re.compile(r"(?<![\w'])([A-Z])(?![\w'])")
_WORD_AFTER = re.compile(r"\s+([a-z]+)")
_LISTED = re.compile(r"^([A-H])\. (.+)$", re.MULTILINE)
_NOT_A_NOUN = frozenset({"or", "and", "is"})


def letter(text: str, letters: str = "ABCDEFGH", options: Mapping[str, str] | None = None) -> str | None:
    """The option letter that `text` names, upper case; None when it names none, or more than one.

    In order: the whole text is a letter; the last "answer is X"; the last "(X)"; a leading "X." ; the only capital
    letter that stands alone; the only option whose text occurs. `options` maps letters to texts and then fixes the
    legal letters.
    """
    legal = set(options) if options else set(letters)
    text = _MARKUP.sub("", text).strip().strip("'")
    bare = text.strip("()[]{}.,:;!? ").upper()
    if len(bare) == 1:
        return bare if bare in legal else None
    found = _by_pattern(text, legal) or _alone(text, legal)
    if found:
        return found if len(found) == 1 else None
    return _by_text(text, options) if options else None


def listed_options(question: str) -> dict[str, str]:
    """The options that a question lists, letter to text: one a line, "A. cat"."""
    return dict(_LISTED.findall(question))


def _by_pattern(text: str, legal: set[str]) -> str:
    named = [bracketed or plain for bracketed, plain in _NAMED.findall(text) if bracketed or plain.isupper()]
    leading = _LEADING.match(text)
    for hits in (named, _BRACKETED.findall(text), [leading[1]] if leading else []):
        valid = [hit.upper() for hit in hits if hit.upper() in legal]
        if valid:
            return valid[-1]
    return ""


def _alone(text: str, legal: set[str]) -> str:
    """The distinct capital letters that stand alone; "A" or "I" before a noun or verb is a word, not an option."""
    found = set()
    for hit in _ALONE.finditer(text):
        after = _WORD_AFTER.match(text, hit.end())
        if hit[1] in "AI" and after and (hit[1] == "I" or after[1] not in _NOT_A_NOUN):
            continue
        found.add(hit[1])
    return "".join(sorted(found & legal))


def _by_text(text: str, options: Mapping[str, str]) -> str | None:
    words = f" {_words(text)} "
    hits = {
        mark: _words(option) for mark, option in options.items() if _words(option) and f" {_words(option)} " in words
    }
    outermost = [
        mark
        for mark, option in hits.items()
        if not any(f" {option} " in f" {other} " and option != other for other in hits.values())
    ]
    return outermost[0] if len(outermost) == 1 else None


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))
