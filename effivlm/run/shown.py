"""What a report may show of samples beside their answers: small pictures, and which visual tokens were kept of them."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Iterator, Sequence
from io import BytesIO
from itertools import count, groupby, pairwise
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from effivlm.compression.base import Method
from effivlm.compression.places import grids_of
from effivlm.models._pictures import plain
from effivlm.records import Cell, Sample
from effivlm.run.faults import FAULTS
from effivlm.run.leaf import Leaf
from effivlm.run.tree import Mask, Tree

SAMPLES = 12  # of each task, whose kept tokens are noted
THUMBNAIL = 256  # pixels of the longer side
ONE_OF_MANY = 128  # the same where a sample has several pictures
DIGEST = 16  # hexadecimal digits: two of a million pictures are alike by chance once in tens of millions of sets


def sample_record(task: str, sample: Sample) -> dict[str, Any]:
    """Question, references, and small pictures as data URLs, all images before all frames; none where one is torn."""
    pictures = _pictures(sample)
    return {
        "kind": "sample",
        "task": task,
        "id": sample.id,
        "prompt": sample.prompt,
        "references": list(sample.references),
        "thumbnail": pictures[0] if pictures else None,
        "pictures": pictures,
    }


def pictures_digest(sample: Sample) -> str:
    """A short name for all pixels that a sample shows, in order; "" where it shows no picture, or one that is torn."""
    images = [*sample.images, *sample.video]
    digest = hashlib.sha256()
    try:
        for image in images:
            seen = plain(image)
            digest.update(f"{seen.size}".encode())
            digest.update(seen.tobytes())
    except FAULTS:  # the answer to its sample carries the error
        return ""
    return digest.hexdigest()[:DIGEST] if images else ""


def _pictures(sample: Sample) -> list[str]:
    images = [*sample.images, *sample.video]
    side = ONE_OF_MANY if len(images) > 1 else THUMBNAIL
    try:
        return [_small(image, side) for image in images]
    except OSError:  # a torn picture; the answer to its sample carries the error
        return []


def _small(image: Image, side: int) -> str:
    file = BytesIO()
    small = plain(image).copy()
    small.thumbnail((side, side))
    small.save(file, "JPEG", quality=60)
    return f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}"


def kept_record(cell: Cell, method: Method, tree: Tree, leaf: Leaf) -> dict[str, Any] | None:
    """Which visual tokens a cell kept of a sample, by layer; None where it kept all of them in all layers.

    `grid` lists [grids, rows, columns] of tokens in prompt order, one entry for each run of equal grids of an image: a
    LLaVA-OneVision image has two, the whole picture and its packed tiles. `shows` says for each entry which of the sample's
    pictures that is: [first, count]; count > 1 is a video, whose grids share the frames out among them. `layers` maps spans of
    equal layers ("0-3", "4") to base64 of one bit for each token of the grids, the first in the highest bit of the first byte.

    Newline markers show no part of a picture and have no bit. None also for methods that show the model other images
    (`downsample` preset paper): their tokens are no subset of dense's. Merged features count by the token they stand at.
    """
    masks = tree.still_seen(method, leaf)
    if masks is None or masks.all():
        return None
    real, grid, shows = tree.once(("grids",), lambda: _grids(tree))
    bits = [b64encode(row.tobytes()).decode() for row in np.packbits(masks[:, real], axis=1)]
    return {
        "kind": "kept",
        "task": cell.task,
        "sample": tree.sample.id,
        "cell": cell.to_json(),
        "grid": grid,
        "shows": shows,
        "layers": dict(_spans(bits)),
    }


def _grids(tree: Tree) -> tuple[Mask, list[list[int]], list[list[int]]]:
    """Which visual tokens show a part of a picture, and `grid` and `shows` of a sample's records."""
    places = [part.cpu() for part in tree.places()]
    real = torch.cat(places)[:, 0].ge(0).numpy()
    grids = [_runs(part) for part in places]
    pictures = _shown(tree.sample, len(places))
    shows = [shows for runs, shows in zip(grids, pictures, strict=True) for _ in runs]
    return real, [run for runs in grids for run in runs], shows


def _shown(sample: Sample, encoded: int) -> list[list[int]]:
    """For each encoded image, the place of its first picture and how many it shows; a video is one of them, or one a frame."""
    stills, frames = len(sample.images), len(sample.video)
    videos, number = encoded - stills, count()
    ends = [stills + frames * part // max(1, videos) for part in range(videos + 1)]
    found: list[list[int]] = []
    for part in sample.parts:
        if isinstance(part, tuple):
            found += [[first, last - first] for first, last in pairwise(ends)]
        elif not isinstance(part, str):
            found.append([next(number), 1])
    return found


def _runs(places: Tensor) -> list[list[int]]:
    """[grids, rows, columns] of each run of grids of one size, in order, of an image's places [n, 3]."""
    sizes = []
    for grid in grids_of(places):
        rows, columns = (1 + int(places[grid, axis].max()) for axis in (1, 2))
        full = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).reshape(-1, 2)
        if not torch.equal(places[grid, 1:], full):
            raise ValueError(f"{len(grid)} tokens of an image are no full {rows} x {columns} grid, row by row")
        sizes.append((rows, columns))
    return [[len(list(equal)), *size] for size, equal in groupby(sizes)]


def _spans(layers: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Consecutive equal layers as one, named by the first and the last."""
    for text, equal in groupby(enumerate(layers), key=lambda pair: pair[1]):
        numbers = [number for number, _ in equal]
        yield f"{numbers[0]}-{numbers[-1]}" if len(numbers) > 1 else f"{numbers[0]}", text
