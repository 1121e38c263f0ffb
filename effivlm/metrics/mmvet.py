"""MM-Vet: a judge's marks of free answers, and what they amount to (arXiv 2308.02490)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from rapidfuzz.distance import LCSseq

from effivlm.metrics.profiles import FIXED, Profile, compat

_GIVES_UP = 4  # failures after which the fork's temperature, raised by half a degree each, has reached 2


def mmvet_mark(reply: str) -> float | None:
    """A judge's mark in [0, 1]: the first word of its reply, None where that is none."""
    try:
        mark = float(reply.strip().split(" ")[0])
    except ValueError:
        return None
    return mark if 0.0 <= mark <= 1.0 else None


def mmvet_judged(replies: Iterable[str], profile: Profile = FIXED) -> float | None:
    """The mark of one answer from a judge's replies, asked again until one is a mark; None (missing) if none is.

    `compat`: an empty reply (a failed call) is 0; after a reply that is no number the next one is thrown away; after four such
    the mark is 0. A judge that always answers out of range is asked for ever there; here the replies end, and it is missing.
    """
    if not compat(profile):
        return next((mark for reply in replies if (mark := mmvet_mark(reply)) is not None), None)
    asked, failures = iter(replies), 0
    for reply in asked:
        if not reply.strip():
            return 0.0
        mark = mmvet_mark(reply)
        if mark is not None:
            return mark
        if not _is_number(reply):
            failures += 1
            next(asked, None)
            if failures == _GIVES_UP:
                return 0.0
    return None


def mmvet_proxy(prediction: str, reference: str, abilities: str = "") -> float:
    """A mark in [0, 1] without a judge, an own definition that is never reported as MM-Vet's.

    The reference is split at <OR> into alternatives and at <AND> into elements. The best alternative counts, by the share of
    its elements that stand in the answer as whole words (numbers by value). Where the ability "gen" is asked, an element
    counts by the share of its words that stand in the answer in order (ROUGE-L recall).
    """
    free = "gen" in (named.strip() for named in abilities.split(","))
    return max(_share_of(option.split("<AND>"), prediction, free) for option in reference.split("<OR>"))


def _share_of(elements: Sequence[str], prediction: str, free: bool) -> float:
    wanted = [_words(element) for element in elements if _words(element)]
    said = _words(prediction)
    if not wanted:
        return float(not said)
    hits = [LCSseq.similarity(said, own) / len(own) if free else float(_stands_in(own, said)) for own in wanted]
    return sum(hits) / len(hits)


def _stands_in(own: Sequence[str], said: Sequence[str]) -> bool:
    return f" {' '.join(own)} " in f" {' '.join(said)} "


def _words(text: str) -> list[str]:
    return [_by_value(word) for word in re.findall(r"-?\d[\d,]*(?:\.\d+)?|\w+", text.lower())]


def _by_value(word: str) -> str:
    try:
        return format(float(word.replace(",", "")), "g")
    except ValueError:
        return word


def _is_number(reply: str) -> bool:
    try:
        float(reply.strip().split(" ")[0])
    except ValueError:
        return False
    return True
