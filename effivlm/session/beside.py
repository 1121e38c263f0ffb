"""Groups answered beside other workers, or a share of them: by the model as it is, then by those that methods make of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from effivlm.records import Cell, Outcome, Unsupported
from effivlm.run.faults import FAULTS, said, told
from effivlm.session.journal import checkpoint
from effivlm.session.together import PAUSE_S, Names, OpenModel, Progress, Together

IDLE_S = 0.25  # between two looks at what others have left, of one that is done with its own
Note = Callable[[Any], None]


def parted(cells: Sequence[Cell]) -> tuple[list[Cell], list[list[Cell]]]:
    """The cells of a group that the model as it is answers, dense where there is none, and those of each changed one."""
    own = [cell for cell in cells if not checkpoint(cell)] or [cell.dense for cell in cells[:1]]
    changed: dict[str, list[Cell]] = {}
    for cell in filter(checkpoint, cells):
        changed.setdefault(checkpoint(cell), []).append(cell)
    return own, list(changed.values())


@dataclass
class Beside:
    """What one process does of groups that others answer too; `names` gives the fingerprints of cells."""

    together: Together
    names: Callable[[Sequence[Cell]], Names]

    def help(self, groups: Sequence[Sequence[Cell]], open_model: Callable[[str], Any]) -> list[str]:
        """Answer what nobody has answered yet of these groups, until all are answered; what of it went wrong, in words.

        Whoever is waited for is at work, or ended, and then its work is taken here.
        """
        troubles: list[str] = []
        failed: set[tuple[str, str]] = set()
        own, changed = [], []
        for cells in filter(None, groups):
            first, later = parted(cells)
            own.append(first)
            changed += later
        units = [*own, *changed]
        while units:
            worked = False
            for cells in list(units):
                try:
                    worked |= self._all_free(cells, partial(open_model, cells[0].model), lambda done, of: None)
                    over = self.together.over(cells)
                except FAULTS as error:  # whoever owns the group does it without help, and tells if it cannot be done
                    if not isinstance(error, Unsupported):
                        troubles.append(f"no help with {' '.join(self.together.blocks(cells).key)}: {told(error)}")
                    if not checkpoint(cells[0]):
                        failed.add(cells[0].group)
                    over = True
                if over:
                    units.remove(cells)
            units = [
                cells for cells in units if cells[0].group not in failed
            ]  # others may never get to what these wait for
            if units and not worked:
                time.sleep(IDLE_S)
        self.together.forget()
        return troubles

    def outcomes(self, cells: Sequence[Cell], model: OpenModel, progress: Progress, note: Note) -> list[Outcome]:
        """The outcomes of a group, those of changed checkpoints in whatever order these come to be there."""
        own, changed = parted(cells)
        found = self.together.outcomes(own, self.names(own), model, progress, note)
        while changed:
            worked = False
            for these in list(changed):
                made = self._changed(these, model, progress, note)
                worked |= made is not None
                if made:
                    found += made
                    changed.remove(these)
            if not worked:
                time.sleep(PAUSE_S)
        return found

    def _all_free(self, cells: Sequence[Cell], model: OpenModel, progress: Progress) -> bool:
        """Answer the blocks that nobody has, one after another, for another checkpoint has to be opened for others; whether there
        was one."""
        worked = False
        if not self.together.over(cells):
            names = self.names(cells)
            while self.together.help(cells, names, model, progress):
                worked = True
        return worked

    def _changed(
        self, cells: Sequence[Cell], model: OpenModel, progress: Progress, note: Note
    ) -> Sequence[Outcome] | None:
        """The outcomes of cells of one changed checkpoint; empty while some are not answered, None where nothing can be done for
        them now. One that cannot be made costs the cells that need it."""
        names = self.names(cells)
        try:
            worked = self._all_free(cells, model, progress)
            if self.together.over(cells):
                return self.together.outcomes(cells, names, model, progress, note)
            return [] if worked else None
        except FAULTS as error:
            self.together.end(cells)
            status = "unsupported" if isinstance(error, Unsupported) else "failed"
            return [Outcome(cell, names[cell], status, reason=said(error)) for cell in cells]
