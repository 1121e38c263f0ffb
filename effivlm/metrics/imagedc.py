"""ImageDC (lmms-lab/DC100_EN): a judge's mark of a detailed caption, 0 to 100."""

from __future__ import annotations

import re

from effivlm.metrics.profiles import FIXED, Profile, compat

_OFFICIAL = re.compile(r"Final Score: (\d+)")
_TOLERANT = re.compile(
    r"final\s++score\s*+(?:is\b)?\s*+[:=]?\s*+(\d+(?:\.\d+)?)(?![\d,]*\d)\s*+(?:/\s*+(\d+))?", re.IGNORECASE
)
_MARKUP = re.compile(r"[*_`#~]+")
BEST = 100.0


def imagedc_mark(reply: str, profile: Profile = FIXED) -> float | None:
    """The mark after "Final Score", in [0, 100]; None (missing) if the reply has none there or one out of range.

    Markup, case and decimals do not matter, and the first one counts. `compat`: the literal "Final Score: " and a whole number,
    decimals cut, any size; a reply without it is 0, so a failed call looks like a bad caption.
    """
    if compat(profile):
        official = _OFFICIAL.search(reply)
        return float(official[1]) if official else 0.0
    found = _TOLERANT.search(_MARKUP.sub("", reply))
    if not found or (found[2] and float(found[2]) != BEST):
        return None
    mark = float(found[1])
    return mark if mark <= BEST else None
