"""The group that a process has open, one at a time: on the model as it is, or on one that a method made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from effivlm.records import Cell, Settings
from effivlm.session.journal import checkpoint

if TYPE_CHECKING:
    from effivlm.run.compressed import Compressed
    from effivlm.run.gave import Reference
    from effivlm.run.group import Group


@dataclass
class Opening:
    """Opens groups of cells that one checkpoint answers."""

    settings: Settings
    _group: tuple[Sequence[Cell], Group] | None = field(default=None, repr=False)
    _opener: Compressed | None = field(default=None, repr=False)

    def has(self, cells: Sequence[Cell]) -> bool:
        return self._group is not None and self._group[0] == cells

    def group(
        self,
        cells: Sequence[Cell],
        model: Callable[[], Any],
        references: Callable[[], Mapping[int, Reference]],
        expects: bool = False,
    ) -> Group:
        """The group of `cells`. `references` are what dense answers, by number; a changed checkpoint is compared with it, for
        which dense is asked what it `expects`.

        Raises:
            Unsupported: there is no such checkpoint. ValueError: it cannot be made or opened. OSError: the disk is full.
        """
        if self._group is None or self._group[0] != cells:
            self._group = None  # before the next one opens: another model may have to make room
            self._group = (cells, self._begun(cells, model(), references, expects))
        return self._group[1]

    def _begun(
        self, cells: Sequence[Cell], model: Any, references: Callable[[], Mapping[int, Reference]], expects: bool
    ) -> Group:
        if checkpoint(cells[0]):
            return self._changed(cells, model, references())
        from effivlm.run.group import Group

        if self._opener is not None and self._opener.aside:  # the model as it is
            self._opener.close()
        return Group(cells, model, self.settings, expects)

    def _changed(self, cells: Sequence[Cell], model: Any, references: Mapping[int, Reference]) -> Group:
        from effivlm.run.group import changed_group

        return changed_group(cells, model, self.settings, references, self.compressed())

    def compressed(self) -> Compressed:
        """What opens the checkpoints that methods make in this process."""
        if self._opener is None:
            from effivlm.run.compressed import Compressed
            from effivlm.run.group import open_model

            self._opener = Compressed(open_model, self.settings)
        return self._opener

    @property
    def changed(self) -> bool:
        """Whether a changed checkpoint was asked for, and may still be open."""
        return self._opener is not None

    def forget(self) -> None:
        """Drop what holds on to an open model; a changed one stays."""
        self._group = None

    def close(self) -> None:
        """Drop all of it."""
        self._group = None
        if self._opener is not None:
            self._opener.close()
