"""Where a text mentions an option's letter, and which of these mentions it takes back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_LETTER = r"(?:[(\[{](?P<bracketed>[A-Za-z])[)\]}]|(?<![\w'’])(?P<plain>[A-Za-z])(?![\w'’]))"
_LINK = r"(?P<link>\s++(?:is|are|was|(?:would|should|must|could|may|might)\s++be)\b)?\s*+(?P<colon>[:=]|-(?=\s))?\s*+"
_NOUN = r"(?:(?:the\s++)?(?:option|choice|letter)\s++)?"
_STATED = re.compile(rf"\b(?P<word>answer|option|choice)\b{_LINK}{_NOUN}{_LETTER}", re.IGNORECASE)
_RIGHT = re.compile(
    rf"{_LETTER}\s++is\s++(?:the\s++)?(?:most\s++|only\s++)?(?:correct|right|best|answer)\b", re.IGNORECASE
)
_BRACKETED = re.compile(r"\((?P<bracketed>[A-Za-z])\)(?P<plain>)")
_ALONE = re.compile(r"(?P<bracketed>)(?<![\w'])(?P<plain>[A-Z])(?![\w'])")
_WORD_AFTER = re.compile(r"\s+([a-z]+)")
_NOT_A_NOUN = frozenset({"or", "and", "is", "nor", "but", "because", "since"})
_ENDS = re.compile(r"\s*(?:[.,;:!?)\]]|$)")

_DENIED_BEFORE = re.compile(
    r"(?:\b(?:not|nor|never|cannot\s+be|rather\s+than|instead\s+of)|n['’]t)\s+(?:be\s+)?"
    r"(?:(?:the\s+)?(?:option|choice|answer)\s+)?[(\[{]?$",
    re.IGNORECASE,
)
_DENIED_AFTER = re.compile(
    r"[)\]}]?\s+(?:(?:is|are|was|seems|looks)\s+(?:clearly\s+|also\s+)?(?:wrong|incorrect|false|not)\b"
    r"|(?:isn|wasn|can|doesn)['’]t\b|cannot\b|does\s+not\b)",
    re.IGNORECASE,
)
_DENIED_CLAUSE = re.compile(
    r"\b(?:neither|none\s+of)\b(?:(?!,?\s+(?:so|but|therefore|thus|hence)\b)[^.;!?\n])*", re.IGNORECASE
)
_OR_AFTER = re.compile(rf"[)\]}}]?(?:,?\s*(?:\bor\b|[/&])|(?P<weak>,?\s*\band\b|,))\s*{_NOUN}{_LETTER}", re.IGNORECASE)
_OR_BEFORE = re.compile(rf"{_LETTER},?\s*(?:\b(?:or|and)\b|[/&])\s*{_NOUN}[(\[{{]?$", re.IGNORECASE)
_BEFORE = 48  # characters in which a word that takes a letter back, or another letter, must stand


class Mention(NamedTuple):
    """An option's letter, upper case, and where it stands; `firm` for one that is called the answer."""

    letter: str
    start: int
    end: int
    firm: bool = True


def stated(text: str, legal: set[str]) -> list[Mention]:
    """Mentions as "the answer is X", "X is correct" (firm), or "option X" alone (not firm), in their order."""
    found = []
    for pattern in (_STATED, _RIGHT):
        for hit in pattern.finditer(text):
            firm = pattern is _RIGHT or bool(hit["word"].lower() == "answer" or hit["link"] or hit["colon"])
            if _is_letter(hit, text):
                found.append(_mention(hit, firm))
    return _standing(sorted(found, key=lambda mention: mention.start), text, legal)


def bracketed(text: str, legal: set[str]) -> list[Mention]:
    """Mentions as "(X)"."""
    return _standing(map(_mention, _BRACKETED.finditer(text)), text, legal)


def alone(text: str, legal: set[str]) -> list[Mention]:
    """Capitals that stand alone; "A" or "I" before a noun or verb is a word, not an option."""
    found = []
    for hit in _ALONE.finditer(text):
        after = _WORD_AFTER.match(text, hit.end())
        if not (hit["plain"] in "AI" and after and (hit["plain"] == "I" or after[1] not in _NOT_A_NOUN)):
            found.append(_mention(hit))
    return _standing(found, text, legal)


def hedged(mention: Mention, text: str, legal: set[str]) -> bool:
    """Whether "or", "and", a slash or a comma joins another letter to this one, so that no single option is named."""
    after = _OR_AFTER.match(text, mention.end)
    joined = after and _other(after, mention, legal) and _is_letter(after, text)
    if after and joined and (not after["weak"] or _ENDS.match(text, after.end())):
        return True
    before = _OR_BEFORE.search(text[max(0, mention.start - _BEFORE) : mention.start])
    return bool(before and _other(before, mention, legal) and not (before["plain"] or "A").islower())


def _other(hit: re.Match[str], mention: Mention, legal: set[str]) -> bool:
    letter = (hit["bracketed"] or hit["plain"]).upper()
    return letter != mention.letter and letter in legal


def _mention(hit: re.Match[str], firm: bool = True) -> Mention:
    group = "bracketed" if hit["bracketed"] else "plain"
    return Mention(hit[group].upper(), hit.start(group), hit.end(group), firm)


def _is_letter(hit: re.Match[str], text: str) -> bool:
    """ "a" and "i" are words unless something ends after them; the other small letters are none."""
    return bool(hit["bracketed"] or hit["plain"] not in "ai" or _ENDS.match(text, hit.end("plain")))


def _standing(mentions: Iterator[Mention] | list[Mention], text: str, legal: set[str]) -> list[Mention]:
    """Legal mentions that the text does not take back, as "not B", "B is wrong" and "neither A nor B" do."""
    denied = [hit.span() for hit in _DENIED_CLAUSE.finditer(text)]
    return [
        mention
        for mention in mentions
        if mention.letter in legal
        and not any(start <= mention.start < end for start, end in denied)
        and not _DENIED_BEFORE.search(text[max(0, mention.start - _BEFORE) : mention.start])
        and not _DENIED_AFTER.match(text, mention.end)
    ]
