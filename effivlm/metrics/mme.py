"""Yes or no, and pairs of questions about one image: the rules of MME (arXiv 2306.13394)."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from effivlm.metrics.categories import grouped, means
from effivlm.metrics.profiles import FIXED, Profile, compat

PERCEPTION = ("existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR")
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
CATEGORY_SCALE = 200.0


def yes_no(text: str, profile: Profile = FIXED) -> str:
    """What an answer says, "yes", "no" or "other" (invalid), as the official script reads it, in both profiles.

    It looks into the first four characters, so "not sure", "know" and "nothing" are no; "I think yes" is other.
    `same` is stricter, lest such an accident count as agreement.
    """
    compat(profile)
    plain = text.lower().strip().replace(".", "")
    if len(plain) == 1:
        return {"y": "yes", "n": "no"}.get(plain, "other")
    return "yes" if "yes" in plain[:4] else "no" if "no" in plain[:4] else "other"


def pair(rights: Sequence[float]) -> list[float]:
    """What the questions about one image count, from whether each is right (0 or 1), in [0, 1].

    Half for being right, half for all of them being right, so that the mean over images is (accuracy + accuracy-plus) / 2:
    MME's score of a category divided by 200.
    """
    together = float(all(rights))
    return [(right + together) / 2 for right in rights]


def mme_categories(
    rights: Sequence[float], images: Sequence[Hashable], categories: Sequence[str], profile: Profile = FIXED
) -> dict[str, float]:
    """MME's score of each category in [0, 200], accuracy + accuracy-plus in percent, in both profiles.

    `rights` says whether each answer is right (0 or 1), `images` which picture it is about. Raises ValueError for a picture with
    other than two questions: a subset is drawn by picture.
    """
    compat(profile)
    pairs = grouped(rights, list(zip(images, categories, strict=True)))
    for (image, category), own in pairs.items():
        if len(own) != 2:
            raise ValueError(f"MME asks two questions about a picture, got {len(own)} about {image!r} of {category!r}")
    scores = [sum(pair(own)) / 2 for own in pairs.values()]
    return {name: CATEGORY_SCALE * mean for name, mean in means(scores, [name for _, name in pairs]).items()}


def mme_total(
    rights: Sequence[float], images: Sequence[Hashable], categories: Sequence[str], profile: Profile = FIXED
) -> float:
    """The sum over categories: 2,000 for perception and 800 for cognition, 2,800 in all. Raises as `mme_categories` does."""
    return sum(mme_categories(rights, images, categories, profile).values())
