"""Letters of the long-video benchmarks: Video-MME (arXiv 2405.21075), MLVU (2406.04264), LongVideoBench (2407.15754)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from effivlm.metrics.choice import letter
from effivlm.metrics.profiles import FIXED, Profile, compat

_ANSWERS = ("The best answer is", "The correct answer is", "The answer is", "The answer")
# Two commas are missing in the list of Video-MME's and MLVU's code, so these openings are joined there and never found.
_JOINED = ("The best option isThe correct option is", "Best answer:Best option:")
_PARTED = ("The best option is", "The correct option is", "Best answer:", "Best option:")


def videomme_letter(text: str, options: Mapping[str, str] | None = None, profile: Profile = FIXED) -> str:
    """The option that an answer names, "" if none (invalid); the score is whether it is the reference.

    `compat`: known openings ("The answer is") are cut out, and the first of the characters A to D is taken, also inside a
    word, so "Answer: C" is A and "Based on the video, it is C" is B.
    """
    if compat(profile):
        return _first(text, "ABCD", (*_ANSWERS, *_JOINED))
    return letter(text, "ABCD", options) or ""


def mlvu_letter(text: str, options: Mapping[str, str] | None = None, profile: Profile = FIXED) -> str:
    """The option that an answer names, "" if none, by Video-MME's rule in both profiles."""
    return videomme_letter(text, options, profile)


def longvideobench_letter(text: str, options: Mapping[str, str] | None = None, profile: Profile = FIXED) -> str:
    """The option that an answer names, "" if none (invalid); up to five options.

    `compat`: as in Video-MME, with E and with all openings cut out. The fork then draws an option at random where it finds
    none; here that answer is invalid in both profiles.
    """
    if compat(profile):
        return _first(text, "ABCDE", (*_ANSWERS, *_PARTED))
    return letter(text, "ABCDE", options) or ""


def _first(text: str, letters: str, openings: Sequence[str]) -> str:
    text = text.strip()
    for opening in openings:
        text = text.replace(opening, "")
    found = re.search(f"[{letters}]", text)
    return found[0] if found else ""
