"""What the micro tasks share: held-out samples of `effivlm_micro`, and an instruction after each question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from effivlm.records import Sample
from effivlm.tasks._base import Lazy, Task


class Micro(Task):
    """A stand-in of a large benchmark with its prompt and its scorer, never reported under its name.

    The file's name is the task's name in `effivlm_micro.heldout`, which renders pictures and questions from seeds, with fonts,
    words and scenes that no micro model was trained on. Source and licence: effivlm_micro, Apache-2.0 (fonts under their own
    free licences).
    """

    instruction: ClassVar[str]

    def samples(self, limit: int, seed: int) -> Sequence[Sample]:
        from effivlm_micro import heldout

        name = type(self).__module__.rpartition(".")[2]
        rows = heldout.items(name, limit + -limit % self.group, seed)

        def make(index: int) -> Sample:
            item = rows[index]
            images, video = ((), item.images) if item.clip else (item.images, ())
            return Sample(item.id, item.question + self.instruction, tuple(item.references), images, video)

        return Lazy(len(rows), make)
