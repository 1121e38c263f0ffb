"""A group answered by several workers: each takes blocks of its samples, and whoever owns it makes outcomes of all answers.

Cells that different checkpoints answer have blocks of their own. Those of a changed one are compared with dense of the model as
it is, so they are asked when all samples have dense's answer. One worker makes the checkpoint; the others do something else
meanwhile, and open it then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effivlm.records import Cell, Outcome, Settings
from effivlm.run.sharding import numbers_of, waits
from effivlm.session.blocks import Blocks, parts
from effivlm.session.journal import Journal, checkpoint
from effivlm.session.opening import Opening

if TYPE_CHECKING:
    from effivlm.run.gave import Asked, Reference
    from effivlm.run.group import Group

PAUSE_S = 0.05
Names = Mapping[Cell, str]
Progress = Callable[[int, int], None]
OpenModel = Callable[[], Any]


@dataclass
class Together:
    """One process's part in answering groups; `workers` of them, who know each other by the name of their `session`, divide each.

    `families` are those of models, by name. `cells` that are asked here together are always of one checkpoint; `expecting` are
    the groups, as (model, task), that have cells of a changed one.
    """

    folder: Path
    journal: Journal
    settings: Settings
    families: Mapping[str, str]
    workers: int = 1
    session: str = "alone"
    expecting: Collection[tuple[str, str]] = ()
    opening: Opening = field(init=False, repr=False)
    _stored: tuple[Names, Mapping[int, Asked]] | None = field(default=None, repr=False)
    _sizes: dict[str, int] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.opening = Opening(self.settings)

    def blocks(self, cells: Sequence[Cell]) -> Blocks:
        key = cells[0].group if self.settings.share else (cells[0].id,)
        changed = checkpoint(cells[0])
        return Blocks(self.folder, self.session, (*key, changed) if changed else key)

    def over(self, cells: Sequence[Cell]) -> bool:
        """Whether nobody has anything to do for these cells any more, or ever will."""
        blocks = self.blocks(cells)
        return blocks.over or self._done(cells) or (self._waits(cells) and self.blocks([cells[0].dense]).over)

    def help(self, cells: Sequence[Cell], names: Names, model: OpenModel, progress: Progress) -> bool:
        """Answer one block of a group that nobody has; False where there is none, or none yet."""
        if self._waits(cells) or not self._made(cells, names, model):
            return False
        with self.blocks(cells).claim(self._parts(cells)) as claim:
            if claim is None:
                return False
            if claim.begun:
                self._stored = (names, self.journal.stored(names))
            for _ in self._answered(cells, names, claim.numbers, model, progress):
                claim.beat()
        return True

    def outcomes(
        self, cells: Sequence[Cell], names: Names, model: OpenModel, progress: Progress, note: Callable[[Any], None]
    ) -> list[Outcome]:
        """The outcomes of a group, once all its blocks are done by whoever does them."""
        from effivlm.run.assembling import assembled

        try:
            if not self.numbers(cells):  # of more shards than samples; nothing is opened for it
                own, why = _own(cells, names), waits(self.settings.shard)
                return [Outcome(cell, name, "unsupported", reason=why) for cell, name in own.items()]
            while not self._done(cells):
                if not self.help(cells, names, model, progress):
                    time.sleep(PAUSE_S)
            made, missing = self.assembled(cells, names, note)
            if missing:  # a line was damaged since
                stored = dict(self._answered(cells, names, self.numbers(cells), model, progress))
                how, family = self._opened(cells, names, model).how, self.families[cells[0].model]
                made, _ = assembled(cells, self.settings, family, names, stored, how, note)
            return made
        finally:
            self.end(cells)

    def end(self, cells: Sequence[Cell]) -> None:
        """Have nobody answer any more for these cells."""
        self.blocks(cells).end()
        self.forget()

    def assembled(
        self, cells: Sequence[Cell], names: Names, note: Callable[[Any], None]
    ) -> tuple[list[Outcome], list[int]]:
        """The outcomes of a group from the journals alone, or numbers of the samples that are missing there."""
        from effivlm.run.assembling import assembled

        how, stored = self.journal.how(cells[0]), self.journal.stored(_own(cells, names))
        if how is None:
            return [], list(self.numbers(cells))
        return assembled(cells, self.settings, self.families[cells[0].model], names, stored, how, note)

    def forget(self) -> None:
        """Drop what holds on to an open model."""
        self.opening.forget()
        self._stored = None

    def references(self, cell: Cell, names: Names) -> dict[int, Reference]:
        """Dense's answers to a cell's task by sample number, from the journals; none where dense was given up."""
        from effivlm.run.gave import Reference

        dense = cell.dense
        found = self.journal.stored({dense: names[dense]})
        if any(dense in one.refused or dense in one.failed for one in found.values()):
            return {}
        return {number: Reference(one.answers[dense], one.expected) for number, one in found.items()}

    def numbers(self, cells: Sequence[Cell]) -> range:
        """Numbers of the samples of a group that this session answers."""
        from effivlm.run.assembling import count

        task = cells[0].task
        if task not in self._sizes:
            self._sizes[task] = count(task, self.settings, self.families[cells[0].model])
        return numbers_of(self.settings.shard, self._sizes[task])

    def _parts(self, cells: Sequence[Cell]) -> list[range]:
        return parts(self.numbers(cells), self.workers)

    def _done(self, cells: Sequence[Cell]) -> bool:
        return len(self.blocks(cells).finished()) >= len(self._parts(cells))

    def _waits(self, cells: Sequence[Cell]) -> bool:
        """Whether dense's answers, with which these cells are compared, are not all there."""
        return bool(checkpoint(cells[0])) and not self._done([cells[0].dense])

    def _made(self, cells: Sequence[Cell], names: Names, model: OpenModel) -> bool:
        """Whether the checkpoint of these cells is there: where it is not, it is made by the first who asks."""
        blocks = self.blocks(cells)
        if not checkpoint(cells[0]) or blocks.made:
            return True
        with blocks.making() as ours:
            if ours:
                self._opened(cells, names, model)
        return ours

    def _answered(
        self, cells: Sequence[Cell], names: Names, numbers: range, model: OpenModel, progress: Progress
    ) -> Iterator[tuple[int, Asked]]:
        """Samples and all they gave, in their order; what is new of it is written down."""
        group = self._opened(cells, names, model)
        for number, found, known in group.through(numbers, self._known(names), group.answers()):
            if not known:
                self.journal.write(number, found, names)
            progress(number + 1, group.total)
            yield number, found

    def _known(self, names: Names) -> Mapping[int, Asked]:
        """What was answered in sessions before this one, or by a worker that is gone since."""
        if self._stored is None or self._stored[0] != names:
            self._stored = (names, self.journal.stored(names) if self.journal.session > 1 else {})
        return self._stored[1]

    def _opened(self, cells: Sequence[Cell], names: Names, model: OpenModel) -> Group:
        known = self.opening.has(cells)
        references, expects = partial(self.references, cells[0], names), cells[0].group in self.expecting
        group = self.opening.group(cells, model, references, expects)
        if not known:
            self.journal.ran(cells[0], group.how)
        return group


def _own(cells: Sequence[Cell], names: Names) -> Names:
    """Without dense where another checkpoint answers the cells."""
    return {cell: names[cell] for cell in cells} if checkpoint(cells[0]) else names
