"""Small sets in the schemas in which benchmarks are published: all columns, types, nulls, text-encoded lists, configs, videos.

`build(task, root)` writes the files of one task under `root/<task>/` as its repository has them. Every picture is drawn from its
number, so that a test can tell which one a sample got.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import published_choices as choices
import published_videos as videos
import published_words as words

BUILDERS: dict[str, Callable[[Path], None]] = {
    **{build.__name__: build for build in (*words.BUILDERS, *choices.BUILDERS, *videos.BUILDERS)},
    **dict.fromkeys(("videomme_all", "videomme_short"), videos.videomme),
    "mmvet_proxy": words.mmvet,
}
NAMES = sorted(BUILDERS)
Opened = Callable[..., Any]
"""The fixture `opened`: a task by name, over the mirror or a folder, for a family."""


def build(task: str, root: Path) -> Path:
    """Write the set of `task` into a mirror at `root`; returns `root`."""
    BUILDERS[task](root / task)
    return root
