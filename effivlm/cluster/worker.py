"""What runs on another machine: one open model, and blocks of samples asked of it. Knows no engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from effivlm.models._sources import ModelSource
from effivlm.records import Cell, Settings
from effivlm.run.faults import FAULTS
from effivlm.session.groups import ending, on_device
from effivlm.session.journal import checkpoint
from effivlm.session.opening import Opening
from effivlm.session.shelf import Shelf, seed_all, settle

if TYPE_CHECKING:
    from effivlm.run.gave import Reference


class Worker:
    """Answers blocks one after another. `settings` are those of the plan: the device is this machine's own."""

    def __init__(self, settings: Settings, sources: Mapping[str, ModelSource]) -> None:
        self.sources = sources
        self.settings = on_device(settings)
        settle(self.settings.device, 1)
        seed_all(settings.seed)
        self.opening = Opening(self.settings)
        self.shelf = Shelf(sources, self.settings, self.opening.close)

    def here(self) -> tuple[Settings, int]:
        """The settings with this machine's device and precision, and the bytes of its GPU, 0 on a CPU."""
        if not self.settings.device.startswith("cuda"):
            return self.settings, 0
        import torch

        return self.settings, int(torch.cuda.get_device_properties(self.settings.device).total_memory)

    def answer(
        self,
        cells: Sequence[Cell],
        names: Mapping[Cell, str],
        numbers: range,
        references: Mapping[int, Reference],
        expects: bool,
    ) -> Iterator[dict[str, Any]]:
        """How the group of `cells` runs here ({"how"}), then what each sample of `numbers` gave, as a line of a journal.

        Cells whose method changes the checkpoint are all of one, which is made here unless it is there; `references` are dense's
        answers to compare theirs with, by number, for which dense is asked what it `expects`.

        Where the group as a whole goes wrong, the last is what becomes of its cells ({"status", "reason"}): also where this
        machine has other weights, code or versions of libraries than the one that names the cells.
        """
        from effivlm.run.journal import line_of

        try:
            if not self.opening.has(cells):
                self._check(names)
            group: Any = self.opening.group(
                cells, partial(self.shelf.open, cells[0].model), lambda: references, expects
            )
            if checkpoint(cells[0]):
                group.references = references
            yield {"how": group.how}
            for number, found, _ in group.through(numbers, {}, group.answers()):
                yield line_of(number, found, names)
        except GeneratorExit:  # nobody listens any more
            raise
        except FAULTS as error:
            status, reason, _ = ending(error)
            yield {"status": status, "reason": reason}

    def close(self) -> None:
        self.shelf.close()

    def _check(self, names: Mapping[Cell, str]) -> None:
        from effivlm.run.group import cell_fingerprint

        for cell, name in names.items():
            if name and cell_fingerprint(cell, self.sources[cell.model], self.settings) != name:
                raise ValueError(
                    f"{cell.id} is another measurement on this machine: its checkpoint, the code or the versions of libraries"
                    " differ from those where the run was started"
                )
