"""From a group of cells to outcomes: everything shared is computed once, and every cell answers for itself.

The run is a tree. Cells of one (model, task) share a sample's images, its vision tower, its prefill and its decoding batch up
to the seam at which their methods differ. `Settings.share` False runs every cell alone through the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import cache, partial
from importlib.metadata import version
from typing import Any, cast

from effivlm import __version__, registry
from effivlm.compression.base import Method
from effivlm.compression.composed import Composed
from effivlm.data.ahead import ahead
from effivlm.decoding.capacity import batch_bytes
from effivlm.decoding.engine import Captured, Eager, engine_for
from effivlm.decoding.replay import compiled
from effivlm.metrics.profiles import FIXED
from effivlm.models._adapter import Adapter
from effivlm.models._ahead import Processed
from effivlm.models._presenting import Presenting
from effivlm.models._sources import ModelSource
from effivlm.records import Budget, Cell, Outcome, Settings, fingerprint
from effivlm.run.answers import Answers, Note
from effivlm.run.audit import achieved, verdict
from effivlm.run.faults import FAULTS, told
from effivlm.run.gave import Asked
from effivlm.run.lengths import Positions
from effivlm.run.noise import asked_again, change_of
from effivlm.run.provenance import class_digest, module_digest, replaced
from effivlm.run.scoring import FALLEN, WAITS, overall, profile_remarks, reported, samples_of, settled
from effivlm.run.steps import Step, stored
from effivlm.run.untouched import tracked
from effivlm.tasks._base import Task
from effivlm.tasks._folder import Folder
from effivlm.tasks._opened import opened, profile_of

Progress = Callable[[int, int], None]
OnAnswers = Callable[[int, Asked], None]
TIMING = "effivlm.timing.timing"  # it is told by name: its wing stands above this one
COMPILED = "sdpa in compiled layers"
COMPILED_FROM = 400
"""Samples of a task from which on layers are compiled: that takes 10 to 20 seconds, and saves some 40 ms a sample and more."""
HOLDS = {"quality": 3, "ttft": 1, "decode": 1}
"""Raised when outcomes of a part hold more than before, so that a resumed run does not mix both."""


def open_model(source: ModelSource, settings: Settings) -> Adapter:
    """Load the checkpoint of `source` with its family's adapter; ValueError when it is damaged, or asks for a way to generate
    that is not done here."""
    adapter = cast(type[Adapter], registry.load("models", source.family))
    model = adapter.load(source, settings.device, settings.dtype)
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


def _made(step: Step, keep: Budget, seed: int) -> Method:
    kind = cast(type[Method], registry.load("methods", step.method))
    if step.preset not in kind.presets:
        raise ValueError(
            f"method {step.method!r} has no preset {step.preset!r}; choose from: {', '.join(kind.presets)}"
        )
    return kind(keep=keep, seed=seed, **kind.presets[step.preset])


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
    return fingerprint(
        {
            "part": [part, HOLDS[part]],
            "model": [cell.model, source.identity],
            "method": [cell.method, cell.preset, repr(method)],
            "task": [cell.task, _declared(cell.task, folder)],
            "settings": [settings.limit, settings.seed, settings.device.split(":")[0], settings.dtype]
            + [settings.engine] * (settings.engine != "auto")
            + [settings.generation] * (settings.generation != "checkpoint")
            + [f"batch {settings.batch}"] * (part == "decode" and settings.batch > 1)
            + [f"prompt {settings.prompt}"] * (part != "quality" and settings.prompt > 0)
            + [f"data {settings.data}"] * (settings.data != "")
            + [f"scoring {profile}"] * (part == "quality" and profile != FIXED)
            + Presenting.of(settings).differences(),
            "versions": _versions(),
            "code": _code(method, task, source, part),
        }
    )


def _code(method: Method, task: type, source: ModelSource, part: str) -> list[Any]:
    """Digests of the code of a cell: its methods, task and family, what runs them, and what times them."""
    methods = method.methods if isinstance(method, Composed) else (method,)
    family = [class_digest("models", source.family)] * (source.family in registry.names("models"))
    runs = module_digest(__name__ if part == "quality" else TIMING)
    kinds = [*map(type, methods), task]
    return [[module_digest(kind.__module__) for kind in kinds], [replaced(kind) for kind in kinds], family, runs]


@cache
def _versions() -> tuple[str, ...]:
    return (__version__, *(version(name) for name in ("torch", "transformers")))


def run_group(
    cells: Sequence[Cell],
    model: Adapter,
    settings: Settings,
    on_progress: Progress | None = None,
    on_note: Note | None = None,
    on_answers: OnAnswers | None = None,
    stored: Mapping[int, Asked] | None = None,
) -> list[Outcome]:
    """Answer a task's samples under every cell of one (model, task) group.

    The dense cell always runs, first, because every other one is compared with it, and twice (on a share of many samples), to
    know how far it agrees with itself. One outcome per cell, in the order given, dense in front where it was not asked for.
    `on_note` gets lines that a report may show: of every sample ("sample"), and of the first ones what was kept ("kept").
    `on_answers` gets, once a sample, its number and all that it gave, before anything is made of it. `stored` is what samples
    gave before, by number: one of which it holds all cells is not asked again.

    Raises:
        ValueError: cells of several groups, or no samples.
    """
    if len({cell.group for cell in cells}) != 1:
        raise ValueError("cells of one group share model and task")
    dense = cells[0].dense
    ordered = list(cells) if dense in cells else [dense, *cells]
    task = task_in(dense.task, settings, model.source.family)
    samples = samples_of(dense.task, task, settings.limit, settings.seed)
    methods, unmade = _methods(ordered, settings.seed)
    most = batch_bytes(model.device)
    engine = engine_for(model.step, model.device, settings.engine, model.spread, model.rules, most)
    twice = asked_again(len(samples), settings.seed)
    answers = Answers(model, task, dense, methods, on_note or (lambda line: None), engine, twice, most)
    kernel = _kernel(engine, len(samples))
    fused = compiled(model.layers, dynamic=True) if kernel == COMPILED else nullcontext()
    model.begin_task(task.pixels, task.tiles, task.max_new_tokens)
    if model.device.type != "cpu":  # there the processor would take the model's own cores
        samples = Processed(samples, partial(model.process, fit=Positions(model).refuse_text))
    with model.seams(), fused, tracked(), ahead(samples) as ready:
        for number in range(len(ready)):
            known = answers.recalled(ready, number, (stored or {}).get(number))
            found = known or answers.ask(ready, number, settings.share)
            if on_answers and not known:
                on_answers(number, found)
            answers.take(found)
            if on_progress:
                on_progress(number + 1, len(samples))
    return [
        Outcome(cell, "", "failed", reason=unmade[cell])
        if cell in unmade
        else _outcome(cell, cell_fingerprint(cell, model.source, settings), answers, kernel)
        for cell in ordered
    ]


def _kernel(engine: Captured | Eager, samples: int) -> str:
    """What computes a group's layers: compiled ones where steps are captured and a task has so many samples that it pays; which
    cells are asked, and how many samples are left to ask, does not matter."""
    return COMPILED if engine.name == Captured.name and samples >= COMPILED_FROM else "sdpa"


def _methods(cells: Sequence[Cell], seed: int) -> tuple[dict[Cell, Method], dict[Cell, str]]:
    """The method of each cell, or why it cannot be made; such a cell has no fingerprint, for it has no fields."""
    made, unmade = dict[Cell, Method](), dict[Cell, str]()
    for cell in cells:
        try:
            made[cell] = method_of(cell, seed)
        except FAULTS as error:
            if cell == cell.dense:
                raise
            unmade[cell] = told(error)
    return made, unmade


def _outcome(cell: Cell, name: str, all_answers: Answers, kernel: str) -> Outcome:
    """What one cell of a group comes to."""
    task, model = all_answers.task, all_answers.model
    facts: dict[str, Any] = {
        "metric": task.metric,
        "answer_type": task.answer_type,
        "scoring": task.scoring,
        "profile": task.profile,
        "average": task.average,
        "samples_from": task.samples_from(),
        "scale": task.scale,
        "group": task.group,
        "engine": all_answers.engine.name,
        "kernel": kernel,
        "weights": model.weights,
    }
    if reason := all_answers.refused.get(cell):
        return Outcome(cell, name, "unsupported", reason=reason, **facts)
    if reason := all_answers.failed.get(cell):
        return Outcome(cell, name, "failed", reason=reason, **facts)
    try:
        answers = all_answers.given[cell] if task.rubric else settled(all_answers.given[cell], task)
        scores = [answer.score for answer in answers if answer.score is not None]
        score = overall(answers, task) if scores else None
        facts["parts"] = reported(answers, task)
    except FAULTS as error:  # a task that cannot sum up one cell's answers fails that cell
        return Outcome(cell, name, "failed", reason=told(error), **facts)
    errors = [answer.error for answer in answers if answer.error]
    broke = "broke or went with one that did" if FALLEN in errors else "broke"
    first = next((error for error in errors if error != FALLEN), "")
    if not scores and len(errors) == len(answers):
        reason = f"every sample {broke}; the first: {first}"
        return Outcome(cell, name, "failed", reason=reason, broken=len(errors), **facts)
    remarks = [f"{len(errors)} of {len(answers)} samples {broke}: {first}"] if errors else []
    facts["achieved"] = achieved(cell, all_answers.methods[cell], all_answers.leaves[cell])
    status, reason = verdict(cell, all_answers.methods[cell], all_answers.leaves[cell])
    if status != "ok":
        return Outcome(cell, name, status, reason=reason, broken=len(errors), **facts)
    return Outcome(
        cell,
        name,
        "unsupported" if task.rubric else "ok",
        reason=WAITS if task.rubric else "",
        n=len(scores),
        broken=len(errors),
        score=score,
        answers=tuple(answers),
        change=change_of(model) if any(answer.again is not None for answer in answers) else "",
        remarks=(*remarks, *profile_remarks(task), *all_answers.remarks(cell), *model.remarks()),
        **facts,
    )
