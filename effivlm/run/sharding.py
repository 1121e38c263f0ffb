"""Shards: the i-th of n runs of one suite answers every n-th sample of every task, and `report` makes one run of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

FORM = re.compile(r"([1-9][0-9]{0,5})/([1-9][0-9]{0,5})")


def shard_of(text: str) -> tuple[int, int]:
    """ "2/8" as (2, 8).

    Raises:
        ValueError: it is no I/N with I from 1 to N.
    """
    found = FORM.fullmatch(text.strip())
    place, count = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 0 < place <= count:
        raise ValueError(f"{text!r} is no shard I/N with I from 1 to N, e.g. 2/8")
    return place, count


def numbers_of(shard: str, total: int) -> range:
    """Numbers of the samples of a task that a shard answers; all of them for ""."""
    if not shard:
        return range(total)
    place, count = shard_of(shard)
    return range(place - 1, total, count)


def waits(shard: str) -> str:
    """What an outcome of a shard says for itself: its score is not known before the others' answers are there."""
    return f"shard {shard}: its answers wait for the others': python -m effivlm report A B ... --out FOLDER"


def lacking(shards: Iterable[str]) -> Sequence[str]:
    """The shards that nobody ran, of those that are named: of two ways to divide, the ones of the first."""
    found = list(dict.fromkeys(shards))
    count = shard_of(found[0])[1] if found else 0
    return [name for place in range(1, count + 1) if (name := f"{place}/{count}") not in found]
