"""EgoSchema: five-way choice about egocentric videos (arXiv 2308.09126)."""

from __future__ import annotations

from collections.abc import Sequence

from effivlm.metrics.choice import letter, lettered
from effivlm.metrics.profiles import FIXED, Profile, compat

INVALID = -1
_FORMS = ("({})", "{} ", "{}.")
_FEW_WORDS = 5


def egoschema_index(text: str, options: Sequence[str], profile: Profile = FIXED) -> int:
    """The place of the option that an answer names, from 0; -1 if it names none (invalid). It is the reference's format.

    `compat` (lmms-eval's parser after MMMU's): the first of all "(X)", "X " and "X.", else in answers of more than five words the
    first option text, its mark ("A. ") included. The fork then draws at random; here that answer is invalid.
    """
    if not compat(profile):
        found = letter(text, options=lettered(options))
        return ord(found) - ord("A") if found else INVALID
    for mark in ",.!?;:'":
        text = text.strip(mark)
    text = f" {text} "
    places = range(len(options))
    marked = [(form.format(chr(ord("A") + place)), place) for form in _FORMS for place in places]
    found_at = [(text.rfind(mark), place) for mark, place in marked if mark in text]
    if not found_at and len(text.split()) > _FEW_WORDS:
        lower = text.lower()
        texts = [option.strip().lower() for option in options]
        found_at = [(lower.rfind(texts[place]), place) for place in places if texts[place] in lower]
    return min(found_at, key=lambda hit: hit[0])[1] if found_at else INVALID


def egoschema(prediction: str, references: Sequence[str], options: Sequence[str], profile: Profile = FIXED) -> float:
    """1 if the answer names the option whose place is a reference ("0" to "4"), else 0. ValueError without references."""
    if not references:
        raise ValueError("an answer is scored against at least one reference, got none")
    found = egoschema_index(prediction.strip(), options, profile)
    return float(str(found) in {reference.strip() for reference in references})
