"""What was made of single images and videos, brought into the order of their placeholders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from effivlm.models._visual import Visual
from effivlm.seams.hooks import Tower


@dataclass(frozen=True, slots=True)
class Seen:
    """One image or video: features [n, d], places [n, 3], the tower where it was looked at, deep features [L, n, d] if any."""

    features: Tensor
    places: Tensor
    tower: Tower | None = None
    deep: Tensor | None = None


def gathered(ids: Tensor, sources: Mapping[int, Iterable[Seen]]) -> Visual:
    """What was seen, in prompt order; `sources` hold it by the token of its placeholders in ids [N], in the order of those.

    The placeholders of one image or video may stand apart (a video whose frames have timestamps between them), as long as
    those of no other stand among them.

    Raises:
        ValueError: features and placeholders differ in number.
    """
    pairs = [pair for token, seen in sources.items() for pair in _placed(ids == token, list(seen))]
    found = [seen for _, seen in sorted(pairs, key=lambda pair: pair[0])]
    towers = tuple(seen.tower for seen in found if seen.tower is not None)
    deep = tuple(seen.deep for seen in found if seen.deep is not None)
    return Visual(
        tuple(seen.features for seen in found), tuple(seen.places for seen in found), towers or None, deep or None
    )


def _placed(here: Tensor, found: Sequence[Seen]) -> list[tuple[int, Seen]]:
    """What was seen, with the position of its first placeholder."""
    positions, start, placed = here.nonzero()[:, 0].tolist(), 0, []
    if len(positions) != (total := sum(len(seen.features) for seen in found)):
        raise ValueError(f"{total} visual features for {len(positions)} placeholders in the prompt")
    for seen in found:
        placed.append((positions[start], seen))
        start += len(seen.features)
    return placed
