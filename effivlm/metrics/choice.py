"""Which option an answer to a multiple-choice question names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from effivlm.metrics import mentions

LETTERS = "ABCDEFGH"
_MARKUP = re.compile(r"[*_`\"“”]+")
_LEADING = re.compile(r"\(?([A-Za-z])[.):](?=\s|$)|([A-Z])[^\S\n]*+\n\s*+(?=\S{2})")
_MARK = re.compile(r"\(?([A-Z])[.):]\s*")
_LISTED = re.compile(r"^([A-H])\. (.+)$", re.MULTILINE)
_DENIAL = re.compile(r" (?:not|no|nor|neither|never|t) (?:(?:a|an|the) )?$")


def letter(text: str, letters: str = LETTERS, options: Mapping[str, str] | None = None) -> str | None:
    """The option letter that `text` names, upper case; None when it names none, or more than one (hedged).

    In order: the whole text is a letter; the last one that is called the answer ("the answer is X", "X is correct"); the
    only "option X"; the last "(X)"; a leading "X."; the only capital that stands alone; the only option whose text occurs.
    Letters that the text denies ("not X", "neither X nor Y", "X is wrong") do not count, and letters joined by "or" name
    none. `options` maps letters to texts and then fixes the legal letters. Nothing is drawn at random: None is an invalid
    answer, which is wrong and is counted.
    """
    legal = set(options) if options else set(letters)
    text = _MARKUP.sub("", text).strip().strip("'")
    bare = text.strip("()[]{}.,:;!? ").upper()
    if bare in legal:
        return bare
    for found in (_called(text, legal), _last(mentions.bracketed(text, legal), text, legal), _leading(text, legal)):
        if found is not None:
            return found or None
    capitals = {mention.letter for mention in mentions.alone(text, legal)}
    if capitals:
        return capitals.pop() if len(capitals) == 1 else None
    return _by_text(text, options) if options else None


def lettered(options: Sequence[str]) -> dict[str, str]:
    """Options in their order as letter to text: ("cat", "dog") is {"A": "cat", "B": "dog"}, and so is ("A. cat", "B. dog")."""
    texts = {chr(ord("A") + place): option.strip() for place, option in enumerate(options)}
    marks = {mark: _MARK.match(text) for mark, text in texts.items()}
    if any(hit is None or hit[1] != mark for mark, hit in marks.items()):
        return texts
    return {mark: text[hit.end() :] if (hit := marks[mark]) else text for mark, text in texts.items()}


def invalid(text: str, letters: str = LETTERS, options: Mapping[str, str] | None = None) -> bool:
    """Whether an answer names no single option: it says none, or hedges. Such an answer is wrong, and counted apart."""
    return letter(text, letters, options) is None


def listed_options(question: str) -> dict[str, str]:
    """The options that a question lists, letter to text: one a line, "A. cat"."""
    return dict(_LISTED.findall(question))


def _called(text: str, legal: set[str]) -> str | None:
    """The letter that is called the answer; "" if the text hedges, None if it calls none so."""
    found = mentions.stated(text, legal)
    firm = [mention for mention in found if mention.firm]
    if not firm and len({mention.letter for mention in found}) > 1:
        return ""
    return _last(firm or found, text, legal)


def _last(found: Sequence[mentions.Mention], text: str, legal: set[str]) -> str | None:
    if not found:
        return None
    return "" if mentions.hedged(found[-1], text, legal) else found[-1].letter


def _leading(text: str, legal: set[str]) -> str | None:
    hit = _LEADING.match(text)
    found = (hit[1] or hit[2]).upper() if hit else ""
    return found if found in legal else None


def _by_text(text: str, options: Mapping[str, str]) -> str | None:
    words = f" {_words(text)} "
    hits = {mark: _words(option) for mark, option in options.items() if _affirmed(_words(option), words)}
    outermost = [
        mark
        for mark, option in hits.items()
        if not any(f" {option} " in f" {other} " and option != other for other in hits.values())
    ]
    return outermost[0] if len(outermost) == 1 else None


def _affirmed(option: str, words: str) -> bool:
    """Whether an option's text occurs as whole words, at least once without a denial before it."""
    parts = words.split(f" {option} ") if option else [words]
    return any(not _DENIAL.search(f"{before} ") for before in parts[:-1])


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))
