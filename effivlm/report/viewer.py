"""What the sample viewer holds: texts, pictures and kept tokens within a number of bytes, each picture once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from effivlm.report.payload import Places, embed
from effivlm.report.samples import Changed

TEXTS = 1_200_000
IMAGES = 2_000_000


def viewer(samples: Changed, room: int = TEXTS + IMAGES) -> dict[str, Any]:
    """The samples that fit into `room` bytes, texts first, then pictures and kept tokens in the order of samples.

    Samples name pictures and masks by their place; `left_out` counts samples whose pictures did not fit. At most
    `TEXTS` and `IMAGES` bytes are used, so that a page stays quick.
    """
    texts = min(room, TEXTS)
    shown: list[dict[str, Any]] = []
    for sample in samples.shown:
        words = {key: value for key, value in sample.items() if key not in ("pictures", "kept")}
        texts -= len(embed(words).encode("utf-8", "replace"))
        if texts < 0:
            break
        shown.append(sample)
    left = min(IMAGES, room - min(room, TEXTS) + max(0, texts))
    pictures, masks = Places(), Places()
    left_out = 0
    found = []
    for one in shown:
        kept = one["kept"]
        new = _cost(one["pictures"], pictures) + _cost(kept["layers"].values() if kept else (), masks)
        fits = new <= left
        left -= new if fits else 0
        left_out += bool(one["pictures"]) and not fits
        layers = [[span, masks(bits)] for span, bits in kept["layers"].items()] if kept and fits else []
        seen = [pictures(picture) for picture in one["pictures"]] if fits else []
        found.append({**one, "pictures": seen, "kept": {**kept, "layers": layers} if layers else None})
    return {
        "shown": found,
        "total": samples.total,
        "left_out": left_out,
        "pictures": pictures.names,
        "masks": masks.names,
    }


def _cost(texts: Iterable[str], known: Places) -> int:
    return sum(len(text) for text in set(texts) if text not in known)
