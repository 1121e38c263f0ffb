"""What claims need of runs, in one small file: the score of every answer, and whether it is dense's; no texts and no tokens."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from effivlm.budget import Budget

FORM = "effivlm observations 1"
DENSE = ("dense", "1.00")
DIGITS = 6
Setting: TypeAlias = tuple[str, str]
"""A method with its preset, and the label of its budget."""
Scores: TypeAlias = Sequence[float | None]


class Missing(ValueError):
    """What a claim needs was not run."""


@dataclass(frozen=True)
class Cell:
    """What one cell answered, in the order of its group's samples; None: it broke, or nothing is known."""

    scores: Scores
    same: Scores
    kept: float
    bytes: float


@dataclass(frozen=True)
class Group:
    """The cells of one (model, task): ids of the samples, the unit that each is drawn with, and dense's tokens for each."""

    model: str
    task: str
    answer_type: str
    ids: list[str]
    units: list[str]
    lengths: list[int]
    cells: dict[Setting, Cell] = field(default_factory=dict)


@dataclass(frozen=True)
class Tally:
    """All groups, the facts of the runs that they are from, and, by method, how many cells have no result and why."""

    groups: list[Group]
    runs: list[dict[str, Any]]
    unmeasured: dict[str, tuple[int, str]] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        cells = [
            {**vars(group), "cells": [[*setting, *vars(cell).values()] for setting, cell in group.cells.items()]}
            for group in self.groups
        ]
        text = json.dumps({"form": FORM, **vars(self), "groups": cells}, separators=(",", ":"), allow_nan=False)
        path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def read(path: Path) -> Tally:
    """A stored tally. Raises ValueError where it is something else."""
    try:
        raw = json.loads(gzip.decompress(path.read_bytes()))
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(f"{path} is neither a run folder nor a tally: {error}") from None
    if not isinstance(raw, dict) or raw.get("form") != FORM:
        raise ValueError(f"{path} is no tally of the form {FORM!r}")
    groups = [
        Group(**{**one, "cells": {(cell[0], cell[1]): Cell(*cell[2:]) for cell in one["cells"]}})
        for one in raw["groups"]
    ]
    return Tally(groups, raw["runs"], {name: (count, why) for name, (count, why) in raw["unmeasured"].items()})


def setting_of(cell: Mapping[str, Any]) -> Setting:
    """The setting of a stored cell."""
    preset = "" if cell["preset"] == "paper" else f"@{cell['preset']}"
    return cell["method"] + preset, Budget.parse(cell["keep"]).label


def told(value: float | bool | None) -> float | None:
    """A value as a tally holds it."""
    return None if value is None else round(float(value), DIGITS)
