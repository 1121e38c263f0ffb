"""From a group of cells to outcomes: everything shared is computed once, and every cell answers for itself.

The run is a tree. Cells of one (model, task) share a sample's images, its vision tower, its prefill and its decoding batch up
to the seam at which their methods differ. `Settings.share` False runs every cell alone through the same code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cache, partial
from typing import Any, cast

from effivlm import registry
from effivlm.compression.base import Method
from effivlm.compression.composed import Composed
from effivlm.compression.weights import WeightMethod
from effivlm.data.ahead import ahead
from effivlm.decoding.capacity import batch_bytes
from effivlm.decoding.engine import Captured, engine_for
from effivlm.decoding.replay import compiled
from effivlm.metrics.profiles import FIXED
from effivlm.models._adapter import Adapter
from effivlm.models._ahead import Processed
from effivlm.models._compressed import readers
from effivlm.models._presenting import Presenting
from effivlm.models._sources import ModelSource
from effivlm.records import Budget, Cell, Outcome, Settings, Unsupported, fingerprint
from effivlm.run.answers import Answers, Note
from effivlm.run.assembly import Ran, outcomes
from effivlm.run.compressed import Compressed, changed_of, closing_after, identity, weights_of
from effivlm.run.faults import FAULTS, said
from effivlm.run.faults import told as reason_of
from effivlm.run.gave import Asked, Reference
from effivlm.run.hands import hands, hands_for
from effivlm.run.lengths import Positions
from effivlm.run.listening import OnAnswers, Progress, Told
from effivlm.run.noise import asked_again
from effivlm.run.provenance import code_of, libraries_of, versions
from effivlm.run.scoring import read, samples_of
from effivlm.run.steps import Step, stored
from effivlm.run.untouched import tracked
from effivlm.run.weighed import Weighed
from effivlm.seams.lengths import any_length
from effivlm.tasks._base import Task
from effivlm.tasks._folder import Folder
from effivlm.tasks._opened import opened, profile_of

WEIGHED = "weighed"
TIMING = "effivlm.timing.timing"  # it is told by name: its wing stands above this one
COMPILED = "sdpa in compiled layers"
COMPILED_FROM = 400
"""Samples of a task from which on layers are compiled: that takes 10 to 20 seconds, and saves some 40 ms a sample and more."""
HOLDS = {"quality": 4, "ttft": 1, "decode": 1}
"""Raised when outcomes of a part hold more than before, so that a resumed run does not mix both."""


def open_model(source: ModelSource, settings: Settings) -> Adapter:
    """Load the checkpoint of `source` with its family's adapter; ValueError when it is damaged, or asks for a way to generate
    that is not done here."""
    adapter = cast(type[Adapter], registry.load("models", source.family))
    model = adapter.load(source, settings.device, settings.dtype, settings.kernels)
    model.present(Presenting.of(settings))
    model.choose_as(settings.generation)
    return model


def method_of(cell: Cell, seed: int = 0) -> Method:
    """The method of a cell with its preset and budget; of a composition all of its methods, in order.

    Raises:
        ValueError: unknown method or preset, naming the choices.
    """
    made = [_made(step, step.budget(cell.budget), seed) for step in stored(cell.method, cell.preset)]
    return made[0] if len(made) == 1 else Composed(keep=cell.budget, seed=seed, methods=tuple(made))


def with_dense(cells: Sequence[Cell]) -> list[Cell]:
    """The cells of a group, dense in front where it is not among them; ValueError for cells of several groups."""
    if len({cell.group for cell in cells}) != 1:
        raise ValueError("cells of one group share model and task")
    return list(cells) if cells[0].dense in cells else [cells[0].dense, *cells]


def _made(step: Step, keep: Budget, seed: int) -> Method:
    kind = cast(type[Method], registry.load("methods", step.method))
    if step.preset not in kind.presets:
        raise ValueError(
            f"method {step.method!r} has no preset {step.preset!r}; choose from: {', '.join(kind.presets)}"
        )
    return kind(keep=keep, seed=seed, **kind.presets[step.preset], **registry.filled(step.method))


def task_of(name: str) -> Task:
    return cast(type[Task], registry.load("tasks", name))()


def task_in(name: str, settings: Settings, family: str = "") -> Task:
    """The task of a name as a run uses it."""
    return opened(name, settings, family, task_of)


@cache
def _declared(name: str, folder: str) -> dict[str, Any]:
    """What of a task decides its outcomes."""
    if folder:
        return {"folder": Folder(name, folder).identity()}
    return dict(registry.declared("tasks", name))


def cell_fingerprint(cell: Cell, source: ModelSource, settings: Settings, part: str = "quality") -> str:
    """Names everything that determines an outcome: weights, method and its fields, task, samples, seed, precision, engine,
    versions of libraries, and the code of all of it."""
    method, folder = method_of(cell, settings.seed), settings.folders.get(cell.task, "")
    task = Folder if folder else type(task_of(cell.task))
    profile = profile_of(task, settings)
    kinds = [type(one) for one in (method.methods if isinstance(method, Composed) else (method,))]
    return fingerprint(
        {
            "part": [part, HOLDS[part]],
            "model": [cell.model, source.identity],
            "method": [cell.method, cell.preset, repr(method), *identity(method, source, settings)],
            "task": [cell.task, _declared(cell.task, folder)],
            "settings": [settings.limit, settings.seed, settings.device.split(":")[0], settings.dtype]
            + [settings.engine] * (settings.engine != "auto")
            + [settings.generation] * (settings.generation != "checkpoint")
            + readers(source, settings.kernels)
            + [f"batch {settings.batch}"] * (part == "decode" and settings.batch > 1)
            + [f"prompt {settings.prompt}"] * (part != "quality" and settings.prompt > 0)
            + [f"data {settings.data}"] * (settings.data != "")
            + [f"scoring {profile}"] * (part == "quality" and profile != FIXED)
            + ["kl"] * (part == "quality" and settings.kl and cell != cell.dense and weights_of(method) is None)
            + Presenting.of(settings).differences(),
            "versions": [*versions(), *libraries_of(kinds)],
            "code": code_of([*kinds, task], source.family, __name__ if part == "quality" else TIMING),
        }
    )


def run_group(
    cells: Sequence[Cell],
    model: Adapter,
    settings: Settings,
    on_progress: Progress | None = None,
    on_note: Note | None = None,
    on_answers: OnAnswers | None = None,
    stored: Mapping[int, Asked] | None = None,
    compressed: Compressed | None = None,
) -> list[Outcome]:
    """Answer a task's samples under every cell of one (model, task) group.

    The dense cell always runs, first, because every other one is compared with it, and twice (on a share of many samples), to
    know how far it agrees with itself. One outcome per cell, in the order given, dense in front where it was not asked for.
    `on_note` gets lines that a report may show: of every sample ("sample"), and of the first ones what was kept ("kept").
    `on_answers` gets, once a sample, its number and all that it gave, before anything is made of it. `stored` is what samples
    gave before, by number: one of which it holds all cells is not asked again. Cells whose method changes the checkpoint come
    after the others, those of one checkpoint together; `compressed` opens it.

    Raises:
        ValueError: cells of several groups, or no samples.
    """
    ordered = with_dense(cells)
    changed = changed_of(methods_of(ordered, settings.seed)[0])
    own = [cell for cell in ordered if not any(cell in those for those in changed.values())]
    told = Told(on_progress, on_note, on_answers, stored or {}, 1 + len(changed))
    asked = Group(own, model, settings, bool(changed))
    answers = asked.run(told)
    names = {cell: cell_fingerprint(cell, model.source, settings) for cell in asked.methods}
    found = outcomes(asked.cells, asked.unmade, names, answers, asked.ran)
    found += run_changed(changed, model, settings, answers.said, told, compressed)
    by_cell = {one.cell: one for one in found}
    return [by_cell[cell] for cell in ordered]


def run_changed(
    changed: Mapping[WeightMethod, Sequence[Cell]],
    whole: Adapter,
    settings: Settings,
    references: Mapping[int, Reference],
    told: Told,
    compressed: Compressed | None = None,
) -> list[Outcome]:
    """The outcomes of cells by the method that makes their model of `whole`; `references` are its dense answers, by number, with
    what it expected."""
    found = []
    with closing_after(compressed, open_model, settings) as opener:
        for place, (method, cells) in enumerate(changed.items(), start=1):
            names = {cell: cell_fingerprint(cell, whole.source, settings) for cell in cells}
            try:
                asked = Changed(cells, *opener.opened(whole, method), settings, references)
                found += outcomes(cells, {}, names, asked.run(told, place), asked.ran)
            except FAULTS as error:  # a checkpoint that cannot be made costs the cells that need it
                status = "unsupported" if isinstance(error, Unsupported) else "failed"
                found += [Outcome(cell, names[cell], status, reason=said(error)) for cell in cells]
    return found


class Group:
    """The cells of one (model, task) group, dense in front, over the samples of its task, for an open model.

    `expects`: what dense expects along its answers is wanted too, for cells of changed checkpoints.

    Raises:
        ValueError: cells of several groups, or no samples.
    """

    def __init__(self, cells: Sequence[Cell], model: Adapter, settings: Settings, expects: bool = False) -> None:
        self.cells, self.model, self.settings, self.expects = with_dense(cells), model, settings, expects
        self.dense = cells[0].dense
        self.task = task_in(self.dense.task, settings, model.source.family)
        self.samples = samples_of(self.dense.task, self.task, settings.limit, settings.seed)
        self.methods, self.unmade = methods_of(self.cells, settings.seed)
        self.most = batch_bytes(model.device)
        self.engine = engine_for(model.step, model.device, settings.engine, model.spread, model.rules, self.most)
        self.ran = Ran.of(model, self.engine.name, _kernel(self.engine.name, len(self.samples)), len(self.samples))

    @property
    def total(self) -> int:
        return self.ran.total

    @property
    def how(self) -> dict[str, Any]:
        """What outcomes say of how this group ran, to be stored beside its answers."""
        return self.ran.to_json()

    def answers(self, note: Note | None = None) -> Answers:
        """What takes in answers of samples in order; nothing is known to it yet."""
        return Answers(
            task=self.task,
            dense=self.dense,
            methods=self.methods,
            note=note or (lambda line: None),
            model=self.model,
            engine=self.engine,
            twice=asked_again(len(self.samples), self.settings.seed),
            most_bytes=self.most,
            expects=self.expects,
            kl=self.settings.kl,
        )

    def run(self, told: Told, place: int = 0) -> Answers:
        """What all samples gave, as the model number `place` of those that answer."""
        answers = self.answers(told.on_note)
        for number, found, known in self.through(range(self.total), told.stored, answers):
            if told.on_answers and not known:
                told.on_answers(number, found)
            if told.on_progress:
                told.on_progress(place * self.total + number + 1, told.count * self.total)
        return answers

    def through(
        self, numbers: range, stored: Mapping[int, Asked], answers: Answers
    ) -> Iterator[tuple[int, Asked, bool]]:
        """The samples of `numbers`, each with all it gave and whether that was stored; `answers` takes it in after that."""
        model, samples = self.model, self.samples
        model.begin_task(self.task.pixels, self.task.tiles, self.task.max_new_tokens)
        if model.device.type != "cpu":  # there the processor would take the model's own cores
            samples = Processed(samples, partial(model.process, fit=Positions(model).refuse_text))
        fused = compiled(model.layers, dynamic=True) if self.ran.kernel == COMPILED else nullcontext()
        count = hands_for(model, len([number for number in numbers if number not in stored]))
        # what a first sample costs and no other is there for all when processes are forked
        first, others = (numbers[:1], numbers[1:]) if count > 1 else (numbers, numbers[:0])
        with model.seams(), any_length(model.device), fused, tracked():
            with ahead(samples, order=first) as ready:
                for number in first:
                    known = answers.recalled(ready, number, stored.get(number))
                    found = known or answers.ask(ready, number, self.settings.share)
                    yield number, found, known is not None
                    answers.take(found)
            if others:
                yield from self._side_by_side(others, stored, answers, count)

    def _side_by_side(
        self, numbers: range, stored: Mapping[int, Asked], answers: Answers, count: int
    ) -> Iterator[tuple[int, Asked, bool]]:
        """As `through`, new samples by so many processes."""
        new, share = [number for number in numbers if number not in stored], self.settings.share
        forked = hands(lambda number, sample: answers.asked(sample, number, share), count)
        with forked as those, ahead(self.samples, order=numbers) as ready:
            given = those.asked(new, lambda number: read(ready, number, ()))
            for number in numbers:
                known = answers.recalled(ready, number, stored.get(number))
                made = next(given) if number not in stored else None
                found = known or (answers.told(number, made) if isinstance(made, Asked) else None)
                if found is None:
                    found = answers.ask(ready, number, share)
                    found.lack(answers.standing[:1] if made else (), "hand", str(made))
                yield number, found, known is not None
                answers.take(found)


class Changed(Group):
    """The cells of a group whose method made the open model out of that of the others; dense is not among them."""

    def __init__(
        self,
        cells: Sequence[Cell],
        model: Adapter,
        weighed: Weighed,
        settings: Settings,
        references: Mapping[int, Reference],
    ) -> None:
        super().__init__(cells, model, settings)
        self.cells, self.weighed, self.references = list(cells), weighed, references
        del self.methods[self.dense]

    @property
    def how(self) -> dict[str, Any]:
        return {**super().how, WEIGHED: self.weighed.to_json()}

    def answers(self, note: Note | None = None) -> Answers:
        return replace(super().answers(note), twice=frozenset(), references=self.references, weighed=self.weighed)


def changed_group(
    cells: Sequence[Cell], whole: Adapter, settings: Settings, references: Mapping[int, Reference], opener: Compressed
) -> Changed:
    """A group of cells of one method that changes the checkpoint, which `opener` opens.

    Raises:
        Unsupported: there is no such product. ValueError: it cannot be made or opened. OSError: the disk is full.
    """
    made, unmade = methods_of(cells, settings.seed)
    if not made:
        raise ValueError("; ".join(dict.fromkeys(unmade.values())))
    (method,) = changed_of(made)
    return Changed(cells, *opener.opened(whole, method), settings, references)


def _kernel(engine: str, samples: int) -> str:
    """What computes a group's layers: compiled ones where steps are captured and a task has so many samples that it pays; which
    cells are asked, and how many samples are left to ask, does not matter."""
    return COMPILED if engine == Captured.name and samples >= COMPILED_FROM else "sdpa"


def methods_of(cells: Sequence[Cell], seed: int) -> tuple[dict[Cell, Method], dict[Cell, str]]:
    """The method of each cell, or why it cannot be made; such a cell has no fingerprint, for it has no fields."""
    made, unmade = dict[Cell, Method](), dict[Cell, str]()
    for cell in cells:
        try:
            made[cell] = method_of(cell, seed)
        except FAULTS as error:
            if cell == cell.dense:
                raise
            unmade[cell] = reason_of(error)
    return made, unmade
