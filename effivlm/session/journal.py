"""Answers on disk as they are made: a session that is killed loses the sample in work, and the next goes on behind it.

Every process that runs cases writes a file of its own into the run folder, and reads those of all. They are taken away when a
run is finished, for its outcomes hold all answers then; those of a shard stay, because its answers wait for the others'.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from effivlm.records import Cell, dump
from effivlm.report.strict import records
from effivlm.run.steps import checkpoint_of
from effivlm.session.recorder import mend

if TYPE_CHECKING:
    from effivlm.run.gave import Asked

PATTERN = "journal-*.jsonl"
RAN = "ran"
CHECKPOINT = "checkpoint"


@dataclass
class Journal:
    """The journal of a process. `session` is the number of this session among those that wrote the run's record.

    `ended` holds, by cell, the session in which it failed: what it answered until then is not taken up again.
    """

    folder: Path
    session: int
    ended: Mapping[Cell, int] = field(default_factory=dict)
    _file: IO[str] | None = field(default=None, repr=False)

    def write(self, number: int, found: Asked, names: Mapping[Cell, str]) -> None:
        """Put down what a sample gave; OSError where that cannot be written."""
        from effivlm.run.journal import line_of

        self.put(line_of(number, found, names))

    def ran(self, cell: Cell, how: Mapping[str, Any]) -> None:
        """Put down how the cells of a group that a cell's checkpoint answers run here: what outcomes say beside answers."""
        self.put({"kind": RAN, "model": cell.model, "task": cell.task, CHECKPOINT: checkpoint(cell), "how": how})

    def put(self, line: Mapping[str, Any]) -> None:
        """Write a line of this or another machine's."""
        if self._file is None:
            host = re.sub(r"[^\w.-]", "_", socket.gethostname())
            path = self.folder / f"journal-{host}-{os.getpid()}.jsonl"
            mend(path)
            self._file = path.open("a", encoding="utf-8")
        self._file.write(dump({**line, "session": self.session}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Let go of the file until there is more to put down."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def how(self, cell: Cell) -> Mapping[str, Any] | None:
        """How the group of a cell ran last on the checkpoint that answers the cell; None where nobody told."""
        found, wanted = None, (*cell.group, checkpoint(cell))
        for line in lines(self.folder):
            if (
                line.get("kind") == RAN
                and tuple(line.get(word, "") for word in ("model", "task", CHECKPOINT)) == wanted
            ):
                found = line.get("how")
        return found

    def stored(self, names: Mapping[Cell, str]) -> dict[int, Asked]:
        """By sample number, what the cells of a group answered under these fingerprints already."""
        groups = {cell.group for cell in names}
        found: dict[int, Asked] = {}
        of_group = [
            one
            for one in lines(self.folder)
            if (one.get("model"), one.get("task")) in groups and one.get("kind") != RAN
        ]
        if not of_group:
            return found
        from effivlm.run.journal import asked_of

        for line in of_group:
            try:
                told = asked_of(self._current(line), names)
                if any(told.ends):  # what it noted belongs to its own cells
                    take_in(found, int(line["number"]), told)
            except (AttributeError, KeyError, TypeError, ValueError):
                continue  # a damaged line costs its sample
        return found

    def _current(self, line: dict[str, Any]) -> dict[str, Any]:
        """A line without the cells that have failed since."""
        cells = [one for one in line["cells"] if line["session"] > self.ended.get(Cell.from_json(one["cell"]), 0)]
        return {**line, "cells": cells}


def checkpoint(cell: Cell) -> str:
    """What makes the checkpoint that answers a cell; "" where the model stays as it is."""
    return checkpoint_of(cell.method, cell.preset, cell.keep)


def take_in(found: dict[int, Asked], number: int, new: Asked) -> None:
    """Take in one more line about a sample; of two about one cell the later counts."""
    old = found.setdefault(number, new)
    if old is new:
        return
    cells = {*new.answers, *new.refused, *new.failed}
    old.lacking = [lack for lack in old.lacking if lack[0] not in cells] + new.lacking
    for word in ("answers", "leaves", "refused", "failed"):
        kept = {cell: value for cell, value in getattr(old, word).items() if cell not in cells}
        setattr(old, word, {**kept, **getattr(new, word)})
    old.held = new.held or old.held
    if any(cell == cell.dense for cell in cells):
        old.expected = new.expected
    old.notes += [note for note in new.notes if note not in old.notes]


def lines(folder: Path) -> Iterator[dict[str, Any]]:
    """The lines of all journals of a run; one that a kill cut short is left out."""
    for path in sorted(folder.glob(PATTERN), key=lambda path: path.stat().st_mtime_ns):
        yield from (record for _, record in records(path) if record is not None)


def clear(folder: Path) -> None:
    """Take the journals of a finished run away."""
    for path in folder.glob(PATTERN):
        path.unlink(missing_ok=True)
