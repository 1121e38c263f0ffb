"""A group answered by several workers: each takes blocks of its samples, and whoever owns it makes outcomes of all answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effivlm.records import Cell, Outcome, Settings
from effivlm.run.sharding import numbers_of
from effivlm.session.blocks import Blocks, parts
from effivlm.session.journal import Journal

if TYPE_CHECKING:
    from effivlm.run.gave import Asked
    from effivlm.run.group import Group

PAUSE_S = 0.05
Names = Mapping[Cell, str]
Progress = Callable[[int, int], None]
OpenModel = Callable[[], Any]


@dataclass
class Together:
    """One process's part in answering groups; `workers` of them, who know each other by the name of their `session`, divide each.

    `families` are those of models, by name.
    """

    folder: Path
    journal: Journal
    settings: Settings
    families: Mapping[str, str]
    workers: int = 1
    session: str = "alone"
    _group: tuple[Sequence[Cell], Group] | None = field(default=None, repr=False)
    _stored: tuple[Names, Mapping[int, Asked]] | None = field(default=None, repr=False)
    _sizes: dict[str, int] = field(default_factory=dict, repr=False)

    def blocks(self, cells: Sequence[Cell]) -> Blocks:
        key = cells[0].group if self.settings.share else (cells[0].id,)
        return Blocks(self.folder, self.session, key)

    def help(self, cells: Sequence[Cell], names: Names, model: OpenModel, progress: Progress) -> bool:
        """Answer one block of a group that nobody has; False where there is none."""
        with self.blocks(cells).claim(parts(self.numbers(cells), self.workers)) as claim:
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
        from effivlm.run.group import assembled

        blocks, numbers = self.blocks(cells), self.numbers(cells)
        try:
            while not all(map(blocks.done, range(len(parts(numbers, self.workers))))):
                if not self.help(cells, names, model, progress):
                    time.sleep(PAUSE_S)
            made, missing = self.assembled(cells, names, note)
            if missing:  # a line was damaged since
                stored = dict(self._answered(cells, names, numbers, model, progress))
                how, family = self._opened(cells, model).how, self.families[cells[0].model]
                made, _ = assembled(cells, self.settings, family, names, stored, how, note)
            return made
        finally:
            blocks.end()
            self.forget()

    def assembled(
        self, cells: Sequence[Cell], names: Names, note: Callable[[Any], None]
    ) -> tuple[list[Outcome], list[int]]:
        """The outcomes of a group from the journals alone, or numbers of the samples that are missing there."""
        from effivlm.run.group import assembled

        how, stored = self.journal.how(cells[0]), self.journal.stored(names)
        if how is None:
            return [], list(self.numbers(cells))
        return assembled(cells, self.settings, self.families[cells[0].model], names, stored, how, note)

    def forget(self) -> None:
        """Drop what holds on to an open model."""
        self._group = self._stored = None

    def _answered(
        self, cells: Sequence[Cell], names: Names, numbers: range, model: OpenModel, progress: Progress
    ) -> Iterator[tuple[int, Asked]]:
        """Samples and all they gave, in their order; what is new of it is written down."""
        group = self._opened(cells, model)
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

    def _opened(self, cells: Sequence[Cell], model: OpenModel) -> Group:
        from effivlm.run.group import Group

        if self._group is None or self._group[0] != cells:
            self._group = None  # before the next one opens: another model may have to make room
            self._group = (cells, Group(cells, model(), self.settings))
            self.journal.ran(cells[0], self._group[1].how)
        return self._group[1]

    def numbers(self, cells: Sequence[Cell]) -> range:
        """Numbers of the samples of a group that this session answers."""
        from effivlm.run.group import count

        task = cells[0].task
        if task not in self._sizes:
            self._sizes[task] = count(task, self.settings, self.families[cells[0].model])
        return numbers_of(self.settings.shard, self._sizes[task])
