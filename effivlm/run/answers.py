"""The answers of a group's cells so far, sample by sample: all a sample gave is taken in at one place."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from PIL.ImageFile import ImageFile

from effivlm.compression.base import Method
from effivlm.decoding.engine import Captured, Eager
from effivlm.models._adapter import Adapter
from effivlm.records import Answer, Cell, Sample
from effivlm.run.asked import Asking
from effivlm.run.diverging import Diverging
from effivlm.run.expected import Expected
from effivlm.run.faults import FAULTS
from effivlm.run.gave import Asked, Reference, broken
from effivlm.run.leaf import Leaf
from effivlm.run.scoring import read, refuse_repeated
from effivlm.run.shown import SAMPLES, pictures_digest, sample_record
from effivlm.run.weighed import Weighed
from effivlm.tasks._base import Task

Note = Callable[[dict[str, Any]], None]
LACKING = {
    "again": "dense could not be asked again",
    "forced": "token agreement could not be computed",
    "kl": "the divergence from dense could not be computed",
    "kept": "the kept visual tokens could not be told",
    "memory": "memory ran out, and cells were decoded in smaller batches,",
    "beside": "memory ran out, and fewer prompts were prefilled side by side,",
    "shown": "the sample could not be shown in the report",
    "hand": "a process beside the run could not answer, and the run asked by itself,",
    "prompt": "the question was shown to the model with U+FFFD for half a surrogate pair",
}


def _loaded(sample: Sample) -> None:
    """Read pictures that were only opened, as threads must not do side by side."""
    for image in (*sample.images, *sample.video):
        if isinstance(image, ImageFile):
            with suppress(*FAULTS):  # a torn picture: the processor says so
                image.load()


@dataclass
class Given:
    """The answers of a group's cells so far, in the order of its samples. `methods` holds all its cells, dense among them.

    `leaves` are what was kept of each prompt, without tensors; `refused` says why a cell cannot exist, `failed` why one was given
    up; `lacking` holds, by cell, what could not be found out beside its answers; `held`, by sample, a tighter limit of its
    pictures. `note` gets what a report may show of samples. `weighed` is what was counted on the weights of a changed model;
    dense is not among its cells. `expects`: what dense `expected`, sample by sample, has to be there beside its answers.
    """

    task: Task
    dense: Cell
    methods: Mapping[Cell, Method]
    note: Note
    given: dict[Cell, list[Answer]] = field(init=False)
    leaves: dict[Cell, list[Leaf]] = field(init=False)
    refused: dict[Cell, str] = field(default_factory=dict)
    failed: dict[Cell, str] = field(default_factory=dict)
    lacking: dict[Cell, list[tuple[str, str]]] = field(init=False)
    held: dict[str, int] = field(default_factory=dict)
    weighed: Weighed | None = None
    expects: bool = False
    expected: list[Expected | None] = field(default_factory=list)
    _known: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.given = {cell: [] for cell in self.methods}
        self.leaves = {cell: [] for cell in self.methods}
        self.lacking = {cell: [] for cell in self.methods}

    @property
    def standing(self) -> list[Cell]:
        """Cells that are still asked; dense first, because the others are compared with it."""
        there = (cell for cell in self.methods if cell not in self.refused and cell not in self.failed)
        return sorted(there, key=lambda cell: cell != self.dense)

    @property
    def said(self) -> dict[int, Reference]:
        """What dense said and expected, by sample number."""
        return dict(enumerate(map(Reference, self.given[self.dense], self.expected)))

    def told(self, number: int, stored: Asked | None) -> Asked | None:
        """What was stored of a sample, of the cells that would be asked now; None where that is not whole.

        A sample that bears the id of one before it has no answers, whoever asked it.
        """
        cells = self.standing
        if stored is None or not all(any(cell in of for of in stored.ends) for cell in cells):
            return None
        if self.expects and stored.unexpected(self.dense):
            return None
        found = stored.of(cells)
        try:
            for name in {one.id for one in found.answers.values()}:
                refuse_repeated(number, name, self._known)
        except FAULTS as error:
            return Asked({cell: broken(f"#{number}", "", error) for cell in cells})
        return found

    def recalled(self, samples: Sequence[Sample], number: int, stored: Asked | None) -> Asked | None:
        """What was stored of a sample, of the cells that would be asked now; None unless it is whole and the same sample."""
        found = self.told(number, stored)
        if found is None:
            return None
        try:
            sample = read(samples, number, self._known)
        except FAULTS:
            return None
        same = all((one.id, one.prompt_sha256) == (sample.id, sample.prompt_sha256) for one in found.answers.values())
        return found if same else None

    def take(self, found: Asked) -> None:
        """Take in all that a sample gave: nothing is known of one before, and nothing changes after."""
        self.refused |= found.refused
        self.failed |= found.failed
        for cell, answer in found.answers.items():
            self.given[cell].append(answer)
            self._known.add(answer.id)
            if found.held:
                self.held[answer.id] = found.held
        if self.dense in found.answers:
            self.expected.append(found.expected)
        for cell, leaf in found.leaves.items():
            self.leaves[cell].append(leaf)
        for cell, what, reason in found.lacking:
            self.lacking[cell].append((what, reason))
        for cell in [*found.refused, *found.failed]:
            self.given[cell].clear()
        for line in found.notes:
            self.note(line)

    def remarks(self, cell: Cell) -> list[str]:
        """What could not be found out beside the answers of a cell: how often, and why the first time."""
        lacking = []
        for what, words in LACKING.items():
            reasons = [reason for lacks, reason in self.lacking[cell] if lacks == what]
            if reasons:
                lacking.append(
                    f"{words} for {len(reasons)} of {len(self.given[cell])} samples; the first: {reasons[0]}"
                )
        return lacking


@dataclass(kw_only=True)
class Answers(Given):
    """The same while a model answers. `twice` are the numbers of the samples on which dense is asked once more.

    `most_bytes` is what the compressed prompts of a sample may take at once, with the caches that decode them. `references` are
    dense's answers, by sample number, where another model gave them. `kl`: cells of the model as it is are measured against them.
    """

    model: Adapter
    engine: Captured | Eager
    twice: AbstractSet[int]
    most_bytes: float = math.inf
    references: Mapping[int, Reference] = field(default_factory=dict)
    kl: bool = False

    def ask(self, samples: Sequence[Sample], number: int, share: bool) -> Asked:
        """What every standing cell says to one sample, which is read once, and noted for the report.

        One that cannot be read is broken in all of them, under a name that no sample has.
        """
        try:
            sample = read(samples, number, self._known)
        except FAULTS as error:
            return Asked({cell: broken(f"#{number}", "", error) for cell in self.standing})
        return self.asked(sample, number, share)

    def asked(self, sample: Sample, number: int, share: bool) -> Asked:
        """As `ask`, of a sample that was read."""
        said = self._reference(number, sample)
        expected = said.expected if said else None
        asking = Asking(
            self.model,
            self.task,
            self.dense,
            self.methods,
            self.engine,
            sample,
            number < SAMPLES,
            number in self.twice,
            Diverging(self.model, self.task.max_new_tokens, self.expects, self.kl, expected),
            self.most_bytes,
            reference=said.answer if said else None,
        )
        _loaded(sample)
        with ThreadPoolExecutor(1, thread_name_prefix="shown") as aside:  # while the device answers
            digest = aside.submit(pictures_digest, sample)
            shown = aside.submit(sample_record, self.dense.task, sample) if self.dense in self.methods else None
            found = asking.ask(self.standing, share)
        try:
            found.notes += [shown.result()] if shown else []
        except FAULTS as error:  # what is noted beside an answer must not take the answer with it
            found.lack([self.dense], "shown", error)
        found.answers = {cell: replace(one, pictures=digest.result()) for cell, one in found.answers.items()}
        found.held = self.model.held.get(sample.id, 0)
        return found

    def _reference(self, number: int, sample: Sample) -> Reference | None:
        found = self.references.get(number)
        return found if found and found.answer.id == sample.id else None
