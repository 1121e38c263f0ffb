"""Runs the selected cells of a (model, task) together and hands every case its own outcome. No pytest in here."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effivlm import registry
from effivlm.records import Cell, Outcome, Settings, Unsupported, dump
from effivlm.run.faults import FAULTS, harmless, told
from effivlm.run.sharding import shard_of
from effivlm.run.steps import stored
from effivlm.session.beside import Beside
from effivlm.session.journal import Journal, checkpoint
from effivlm.session.matrix import Plan
from effivlm.session.recorder import Key
from effivlm.session.resume import fingerprint_of, standing
from effivlm.session.together import Together

if TYPE_CHECKING:
    from effivlm.timing.timing import Timing

PACKAGE = Path(__file__).parent.parent
Progress = Callable[[int, int], None]
OpenModel = Callable[[], Any]


@dataclass
class Groups:
    """What has been measured in this process, and what still waits to be written.

    `selected` holds the cells that the session really runs, by part: a group's run covers those and no others. `workers` run
    cases beside each other in the session of that name.
    """

    plan: Plan
    settings: Settings
    folder: Path
    selected: Mapping[str, Sequence[Cell]]
    workers: int = 1
    session: str = "alone"
    done: dict[Key, Outcome] = field(default_factory=dict)
    pending: list[Outcome] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    trace: str = ""
    journal: Journal = field(init=False)
    together: Together = field(init=False)
    _unmarked: dict[Cell, Outcome] = field(default_factory=dict)
    _prepared: tuple[Cell, Timing] | None = None

    def __post_init__(self) -> None:
        found = standing(self.folder, self.plan, self.settings)
        self.done, self._unmarked = dict(found.reusable), dict(found.unmarked)
        self.journal = Journal(self.folder, found.sessions, found.failed)
        families = {name: source.family for name, source in self.plan.sources.items()}
        more = self.workers, self.session, self.expecting
        self.together = Together(self.folder, self.journal, self.settings, families, *more)

    @property
    def expecting(self) -> frozenset[tuple[str, str]]:
        """The groups with cells of changed checkpoints, which are compared with what dense expects."""
        return frozenset(cell.group for cell in self.selected.get("quality", ()) if changes(cell))

    def quality(self, cell: Cell, open_model: OpenModel, progress: Progress) -> Outcome:
        """The quality outcome of `cell`; the first call of a group runs the group."""
        if (cell, "quality") not in self.done:
            self.mark(cell)
        if (cell, "quality") not in self.done and (cells := self.waiting(cell)):
            self._run(cells, open_model, progress)
        return self.done[cell, "quality"]

    def mark(self, cell: Cell) -> None:
        """Have the answers of an earlier session to a cell's group marked that wait for it; no model is asked for them again."""
        group = [other for other in self.selected["quality"] if other.group == cell.group]
        waiting = [self._unmarked.pop(one) for one in group if one in self._unmarked]
        if waiting:
            from effivlm.session.judged import mark_all

            for outcome in mark_all(waiting, self.settings, self.plan.sources[waiting[0].cell.model].family):
                self._keep(outcome)

    def help(self, open_model: Callable[[str], Any]) -> list[str]:
        """Answer what other workers have not answered yet of the groups of this session; what of it went wrong, in words."""
        if self.workers < 2 or not self.settings.share:
            return []
        firsts = {cell.group: cell for cell in reversed(self.selected["quality"])}
        waiting = [self._waiting(cell) for cell in reversed(firsts.values())]
        usable = [[one for one in cells if not _unusable(one, self.settings)] for cells in waiting]
        return Beside(self.together, self.names).help(usable, open_model)

    def waiting(self, cell: Cell) -> list[Cell]:
        """The selected cells of a cell's group that have no outcome and can be run; without sharing it alone.

        A cell whose classes cannot be loaded fails by name, before any model opens.
        """
        for one in self._waiting(cell):
            if reason := _unusable(one, self.settings):
                self._keep(Outcome(one, "", "failed", reason=reason))
        return self._waiting(cell)

    def _waiting(self, cell: Cell) -> list[Cell]:
        group = [one for one in self.selected["quality"] if one.group == cell.group] if self.settings.share else [cell]
        return [one for one in group if (one, "quality") not in self.done]

    def names(self, cells: Sequence[Cell]) -> dict[Cell, str]:
        """Fingerprints of the answers of a group, whoever marks them, dense among them; "" for a method that cannot be made."""
        from effivlm.run.group import cell_fingerprint

        found = {}
        for cell in (*cells, cells[0].dense):
            try:
                found[cell] = cell_fingerprint(cell, self.plan.sources[cell.model], self.settings)
            except FAULTS:
                found[cell] = ""
        return found

    def timing(self, cell: Cell, part: str, open_model: OpenModel, remarks: Sequence[str]) -> Outcome:
        """The timing outcome of `cell`, measured until its median is settled.

        The dense timing of the group is measured first where no case of its own does it.
        """
        if (cell, part) in self.done:
            return self.done[cell, part]
        reference = cell.dense
        if (reference, part) not in self.done and reference not in self.selected[part]:
            self._time(reference, part, open_model, remarks)
        self._time(cell, part, open_model, remarks)
        return self.done[cell, part]

    def elsewhere(self, cell: Cell) -> str:
        """Which other shard times the group of a cell, whose timings belong to one machine; "" where this one does."""
        if not self.settings.shard:
            return ""
        place, shards = shard_of(self.settings.shard)
        groups = list(dict.fromkeys(one.group for one in self.plan.cells))
        owner = groups.index(cell.group) % shards + 1
        return "" if owner == place else f"{owner}/{shards}"

    def drain(self) -> list[Outcome]:
        """What has been measured since the last call."""
        drained, self.pending = self.pending, []
        return drained

    def drain_samples(self) -> list[dict[str, Any]]:
        """What the report may show of samples that came up since the last call: lines of kind "sample" and "kept"."""
        drained, self.samples = self.samples, []
        return drained

    def forget_model(self) -> None:
        """Drop what holds on to an open model, and what methods made of it; nothing more is answered until another is open."""
        self._prepared = None
        self.journal.close()
        self.together.forget()
        self.together.opening.close()

    def _compressed(self, cells: Sequence[Cell]) -> dict[str, Any]:
        """What opens the checkpoints that methods make, where one is needed, or was before and may still be open."""
        needed = self.together.opening.changed or any(map(changes, cells))
        return {"compressed": self.together.opening.compressed()} if needed else {}

    def fingerprint(self, cell: Cell, part: str = "quality") -> str:
        return fingerprint_of((cell, part), self.plan, self.settings)

    def _run(self, cells: Sequence[Cell], open_model: OpenModel, progress: Progress) -> None:
        def answered() -> list[Outcome]:
            progress(0, self.settings.limit)  # before the imports, which take seconds
            from effivlm.run.group import run_group

            names, note = self.names(cells), self.samples.append
            write = partial(self.journal.write, names=names)
            if self.workers > 1 or self.settings.shard:
                return Beside(self.together, self.names).outcomes(cells, open_model, progress, note)
            stored, more = self.journal.stored(names), self._compressed(cells)
            return run_group(cells, open_model(), self.settings, progress, note, write, stored, **more)

        self.complete(cells, answered)

    def complete(self, cells: Sequence[Cell], answered: Callable[[], Sequence[Outcome]]) -> None:
        """Take in the outcomes of a group, its answers marked where a judge does that; what goes wrong fails its cells."""
        from effivlm.session.judged import mark_all

        try:
            made = mark_all(answered(), self.settings, self.plan.sources[cells[0].model].family)
            outcomes = {outcome.cell: outcome for outcome in made}
        except FAULTS as error:
            outcomes = {cell: self._broken(cell, "quality", error) for cell in cells}
        lost = [cell for cell in cells if cell not in outcomes]
        for cell in lost:
            outcomes[cell] = Outcome(cell, self.fingerprint(cell), "failed", reason="the run gave no outcome for it")
        for outcome in outcomes.values():
            self._keep(outcome)

    def _time(self, cell: Cell, part: str, open_model: OpenModel, remarks: Sequence[str]) -> None:
        from effivlm.timing.rounds import unsettled

        try:
            timing = self._prepare(cell, open_model)
            rounds = timing.rounds(part)
            outcome = timing.outcome(part, rounds, (*remarks, *unsettled(part, rounds)))
        except FAULTS as error:
            outcome = self._broken(cell, part, error)
            self._prepared = None  # a device that is full must not stay so for the cells to come
        self._keep(outcome)

    def _prepare(self, cell: Cell, open_model: OpenModel) -> Timing:
        """One prepared timing at a time: both parts of a cell share it, and it holds a cache on the device."""
        from effivlm.timing.timing import prepare_timing

        if self._prepared is None or self._prepared[0] != cell:
            self._prepared = None
            self._prepared = (cell, prepare_timing(cell, open_model(), self.settings, **self._compressed([cell])))
        return self._prepared[1]

    def _keep(self, outcome: Outcome) -> None:
        """Take in an outcome; one that cannot be stored has failed, with what of it cannot."""
        try:
            dump(outcome.to_json())
        except (TypeError, ValueError) as error:
            reason = f"it cannot be stored: {error}"
            outcome = Outcome(outcome.cell, outcome.fingerprint, "failed", part=outcome.part, reason=reason)
        self.done[outcome.cell, outcome.part] = outcome
        self.pending.append(outcome)

    def _broken(self, cell: Cell, part: str, error: BaseException) -> Outcome:
        status, reason, trace = ending(error)
        self.trace = trace or self.trace
        return Outcome(cell, self._name(cell, part), status, part=part, reason=reason)

    def end(self, cells: Sequence[Cell], status: str, reason: str) -> None:
        """Take in that a group ended so, on another machine."""
        for cell in cells:
            self._keep(Outcome(cell, self._name(cell, "quality"), status, reason=reason))

    def _name(self, cell: Cell, part: str) -> str:
        """The fingerprint, "" for a method that cannot even be made."""
        try:
            return self.fingerprint(cell, part)
        except FAULTS:
            return ""


def ending(error: BaseException) -> tuple[str, str, str]:
    """What an error that ended a group, or a timing, makes of its cells: status and reason, and the calls that led to it where
    these say more than the reason.

    A plain ValueError or OSError of this package is written for a reader; of anything else the place is half of it.
    """
    status = "unsupported" if isinstance(error, Unsupported) else "failed"
    plain = isinstance(error, ValueError | OSError) and str(error) and _raised_here(error)
    trace = "" if plain or status == "unsupported" else harmless("".join(traceback.format_exception(error)))
    return status, harmless(str(error)) if plain or status == "unsupported" else told(error), trace


def changes(cell: Cell) -> bool:
    """Whether the method of a cell changes the checkpoint itself."""
    return bool(checkpoint(cell))


def _unusable(cell: Cell, settings: Settings) -> str:
    """Why the classes behind a cell cannot be loaded, which fails it by name before any model opens; "" where they can."""
    try:
        for step in stored(cell.method, cell.preset):
            kind = registry.load("methods", step.method)
            if what := registry.filled(step.method):
                kind(**what)
        if cell.task not in settings.folders:
            registry.load("tasks", cell.task)
    except ValueError as error:
        return str(error)
    return ""


def _raised_here(error: BaseException) -> bool:
    """Whether this package itself raised an error, and no code of authors or libraries."""
    places = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)][-1:]
    return all(place.is_relative_to(PACKAGE) for place in places)


def on_device(settings: Settings, worker: int = 0) -> Settings:
    """Settings with a real device and dtype: worker i gets GPU i modulo their number, the CPU is what works everywhere.

    Raises ValueError when a device was asked for by name and is not there. Imports torch.
    """
    if settings.device == "cpu":
        return _with_dtype(settings, "cpu")
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    given = f"--vlm-device: {settings.device!r} was asked for"
    asked, _, number = settings.device.partition(":")
    if not count:
        if asked == "cuda":
            raise ValueError(f"{given}, but torch sees no GPU here; choose cpu or auto")
        return _with_dtype(settings, "cpu")
    if number and int(number) >= count:
        raise ValueError(f"{given}, but there are {count} GPUs: cuda:0 to cuda:{count - 1}")
    return _with_dtype(settings, settings.device if number else f"cuda:{worker % count}")


def fit_engine(settings: Settings) -> None:
    """ValueError where the engine that was asked for cannot work on the device, which `on_device` found."""
    if settings.engine == "cuda_graph" and settings.device == "cpu":
        raise ValueError("--vlm-engine: 'cuda_graph' was asked for, but torch sees no GPU here; choose eager or auto")


def _with_dtype(settings: Settings, device: str) -> Settings:
    automatic = "float32" if device == "cpu" else "bfloat16"
    return replace(settings, device=device, dtype=automatic if settings.dtype == "auto" else settings.dtype)


def threads_per_worker(workers: int) -> int:
    return max(1, (os.cpu_count() or 1) // max(1, workers))
