"""All that a sample gave, as a line of a journal and back: taking in what was read equals having asked.

A line holds one sample's number, id and the digest of its question, and a record of each cell with the fingerprint under
which it answered, so that a line is worth something to any later group, split of its samples or set of cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from effivlm.records import Cell, answer_of
from effivlm.run.expected import Expected
from effivlm.run.gave import Asked
from effivlm.run.leaf import Leaf

KIND = "answers"
TENSORS = ("cache", "logits")
"""What a leaf has no more when it is stored."""
Line = dict[str, Any]


def line_of(number: int, found: Asked, names: Mapping[Cell, str]) -> Line:
    """What the sample of that number gave; `names` are fingerprints, and a cell without one is left out."""
    cells = dict.fromkeys([*found.answers, *found.refused, *found.failed])
    asked = next(iter(found.answers.values()), None)
    first = next(iter(cells), None)
    return {
        "kind": KIND,
        "model": first.model if first else "",
        "task": first.task if first else "",
        "number": number,
        "sample": asked.id if asked else "",
        "prompt_sha256": asked.prompt_sha256 if asked else "",
        "cells": [_cell(cell, found, names[cell]) for cell in cells if names.get(cell)],
        "notes": found.notes,
        "held": found.held,
    }


def _cell(cell: Cell, found: Asked, name: str) -> Line:
    answer, leaf = found.answers.get(cell), found.leaves.get(cell)
    return {
        "cell": cell.to_json(),
        "fingerprint": name,
        "answer": answer and asdict(answer),
        "leaf": leaf and {word: value for word, value in asdict(leaf).items() if word not in TENSORS},
        "refused": found.refused.get(cell, ""),
        "failed": found.failed.get(cell, ""),
        "lacking": [[what, reason] for lacks, what, reason in found.lacking if lacks == cell],
        "expected": found.expected.to_json() if found.expected and cell == cell.dense else None,
    }


def asked_of(line: Line, names: Mapping[Cell, str]) -> Asked:
    """What a line tells of the cells in `names`, whose fingerprints it must bear.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: the line is damaged.
    """
    found = Asked(notes=list(line["notes"]), held=int(line["held"]))
    for one in line["cells"]:
        cell = Cell.from_json(one["cell"])
        if names.get(cell) != one["fingerprint"]:
            continue
        if one["answer"]:
            found.answers[cell] = answer_of(one["answer"])
        if one["leaf"]:
            found.leaves[cell] = _leaf(one["leaf"])
        if one["refused"]:
            found.refused[cell] = one["refused"]
        if one["failed"]:
            found.failed[cell] = one["failed"]
        if one["expected"]:
            found.expected = Expected.from_json(one["expected"])
        found.lacking += [(cell, what, reason) for what, reason in one["lacking"]]
    return found


def _leaf(data: Line) -> Leaf:
    return Leaf(cache=(), **{word: _tuples(value) for word, value in data.items()})


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
