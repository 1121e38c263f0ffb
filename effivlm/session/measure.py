"""What a run will take on this machine, from a few samples that are really asked before it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from effivlm.models._hub import missing
from effivlm.models._sources import ModelSource
from effivlm.records import Cell, Settings
from effivlm.run.faults import FAULTS, told
from effivlm.run.steps import weights_step
from effivlm.session.groups import on_device
from effivlm.session.matrix import Plan

ASKED = 3  # samples: the first pays for what is compiled and captured once


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds of one sample of a group: of dense alone, and under all of the group's cells, which share what they can.

    `once_s` is what the group takes once, opening its model included. `reason` says why nothing was measured.
    """

    model: str
    task: str
    cells: int = 0
    dense_s: float = 0.0
    sample_s: float = 0.0
    once_s: float = 0.0
    reason: str = ""

    def seconds(self, samples: int) -> float:
        return self.once_s + self.sample_s * samples


def measure(plan: Plan, absent: Mapping[str, str]) -> Iterator[Measured]:
    """Ask the first samples of every (model, task) of a plan, nothing being stored; `absent` says which tasks cannot be asked.

    One that cannot be measured says why and stops no other. Nothing is downloaded, and no checkpoint is changed: of cells
    whose method does that dense is asked alone.
    """
    settings = replace(on_device(plan.settings), limit=ASKED)
    for name, source in plan.sources.items():
        groups: dict[str, list[Cell]] = {}
        for cell in plan.cells:
            if cell.model == name:
                changes = weights_step(cell.method, cell.preset, cell.keep) is not None
                groups.setdefault(cell.task, []).append(cell.dense if changes else cell)
        opened = _Opened(source, settings)
        try:
            for task, cells in groups.items():
                reason = absent.get(task, "") or opened.missing()
                yield (
                    Measured(name, task, reason=reason) if reason else opened.measure(task, list(dict.fromkeys(cells)))
                )
        finally:
            opened.close()


class _Opened:
    """One model, opened for the first group that is measured on it."""

    def __init__(self, source: ModelSource, settings: Settings) -> None:
        self.source, self.settings = source, settings
        self.model: Any = None

    def missing(self) -> str:
        gone = missing(Path(self.source.source)) if self.source.commit else ()
        return f"{len(gone)} files of the weights of {self.source.name} are not here" if gone else ""

    def measure(self, task: str, cells: list[Cell]) -> Measured:
        from effivlm.run.group import open_model

        name, began = self.source.name, time.monotonic()
        try:
            if self.model is None:
                self.model = open_model(self.source, self.settings)
            opening = time.monotonic() - began
            _, dense = self._asked([cells[0].dense])
            first, every = self._asked(cells)
        except FAULTS as error:
            return Measured(name, task, reason=told(error))
        return Measured(name, task, len(cells), dense, every, opening + max(0.0, first - every))

    def _asked(self, cells: list[Cell]) -> tuple[float, float]:
        """Seconds of the first sample, and of each behind it.

        Raises:
            ValueError: every sample broke, so that nothing was measured.
        """
        from effivlm.run.group import run_group

        ticks = [time.monotonic()]
        (dense, *_) = run_group(cells, self.model, self.settings, lambda done, of: ticks.append(time.monotonic()))
        if dense.status == "failed":
            raise ValueError(dense.reason)
        spans = [after - before for before, after in pairwise(ticks)]
        later = spans[1:] or spans
        return spans[0], sum(later) / len(later)

    def close(self) -> None:
        if self.model is not None:
            self.model.close()
