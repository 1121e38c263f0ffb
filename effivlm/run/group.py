"""From a group of cells to outcomes: everything shared is computed once, and every cell answers for itself.

The run is a tree. Cells of one (model, task) share a sample's images, its vision tower, its prefill and its decoding batch up
to the seam at which their methods differ. `Settings.share` False runs every cell alone through the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from typing import Any, cast

from effivlm import __version__, registry
from effivlm.compression.base import Method
from effivlm.compression.composed import Composed
from effivlm.decoding.engine import engine_for
from effivlm.models._adapter import Adapter
from effivlm.models._presenting import Presenting
from effivlm.models._sources import ModelSource
from effivlm.records import Achieved, Answer, Budget, Cell, KeptBy, Outcome, Settings, fingerprint
from effivlm.run.answers import Answers, Note
from effivlm.run.noise import change_of
from effivlm.run.shown import SAMPLES, sample_record
from effivlm.run.steps import Step, stored
from effivlm.run.tree import Leaf
from effivlm.tasks._base import Task

Progress = Callable[[int, int], None]
FALLEN = "it is scored together with a sample that broke"
HOLDS = {"quality": 2, "ttft": 1, "decode": 1}
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


def cell_fingerprint(cell: Cell, source: ModelSource, settings: Settings, part: str = "quality") -> str:
    """Names everything that determines an outcome: model, method and its fields, task, samples, precision and versions."""
    return fingerprint(
        {
            "part": [part, HOLDS[part]],
            "model": [cell.model, source.identity],
            "method": [cell.method, cell.preset, repr(method_of(cell, settings.seed))],
            "task": [cell.task, dict(registry.declared("tasks", cell.task))],
            "settings": [settings.limit, settings.seed, settings.device.split(":")[0], settings.dtype]
            + [settings.engine] * (settings.engine != "auto")
            + [settings.generation] * (settings.generation != "checkpoint")
            + [f"batch {settings.batch}"] * (part == "decode" and settings.batch > 1)
            + [f"prompt {settings.prompt}"] * (part != "quality" and settings.prompt > 0)
            + Presenting.of(settings).differences(),
            "versions": _versions(),
        }
    )


@cache
def _versions() -> tuple[str, ...]:
    return (__version__, *(version(name) for name in ("torch", "transformers")))


def sample_records(task: str, settings: Settings) -> Iterator[dict[str, Any]]:
    """What a report may show of a task's samples: lines of kind "sample"."""
    return (sample_record(task, sample) for sample in task_of(task).samples(settings.limit, settings.seed))


def run_group(
    cells: Sequence[Cell],
    model: Adapter,
    settings: Settings,
    on_progress: Progress | None = None,
    on_note: Note | None = None,
) -> list[Outcome]:
    """Answer a task's samples under every cell of one (model, task) group.

    The dense cell always runs, first, because every other one is compared with it, and twice, to know how far it agrees with
    itself. One outcome per cell, in the order given, dense in front where it was not asked for. `on_note` gets lines that a
    report may show of the first samples ("kept").

    Raises:
        ValueError: cells of several groups, or no samples.
    """
    if len({cell.group for cell in cells}) != 1:
        raise ValueError("cells of one group share model and task")
    dense = cells[0].dense
    ordered = list(cells) if dense in cells else [dense, *cells]
    task = task_of(dense.task)
    samples = task.samples(settings.limit, settings.seed)
    if not samples:
        raise ValueError(f"task {dense.task!r} has no samples for limit {settings.limit}")
    methods = {cell: method_of(cell, settings.seed) for cell in ordered}
    answers = Answers(
        model,
        task,
        dense,
        methods,
        on_note or (lambda line: None),
        engine_for(model.step, model.device, settings.engine, model.spread, model.rules),
    )
    model.begin_task(task.pixels, task.tiles, task.max_new_tokens)
    with model.seams():
        for number, sample in enumerate(samples):
            answers.ask(sample, settings.share, number < SAMPLES)
            if on_progress:
                on_progress(number + 1, len(samples))
    return [_outcome(cell, cell_fingerprint(cell, model.source, settings), answers) for cell in ordered]


def _settled(answers: Sequence[Answer], task: Task) -> list[Answer]:
    """Answers with the scores that hold once all are known; one whose score falls with another's says so."""
    scores = task.settle([answer.id for answer in answers], [answer.score for answer in answers])
    return [
        replace(answer, score=score, error=answer.error or (FALLEN if score is None else ""))
        for answer, score in zip(answers, scores, strict=True)
    ]


def _outcome(cell: Cell, name: str, all_answers: Answers) -> Outcome:
    """What one cell of a group comes to."""
    task, model = all_answers.task, all_answers.model
    facts: dict[str, Any] = {
        "metric": task.metric,
        "answer_type": task.answer_type,
        "scoring": task.scoring,
        "scale": task.scale,
        "group": task.group,
        "engine": all_answers.engine.name,
        "kernel": "sdpa",
        "weights": model.weights,
    }
    if reason := all_answers.refused.get(cell):
        return Outcome(cell, name, "unsupported", reason=reason, **facts)
    answers = _settled(all_answers.given[cell], task)
    scores = [answer.score for answer in answers if answer.score is not None]
    errors = [answer.error for answer in answers if answer.error]
    broke = "broke or went with one that did" if FALLEN in errors else "broke"
    first = next((error for error in errors if error != FALLEN), "")
    if not scores:
        reason = f"every sample {broke}; the first: {first}"
        return Outcome(cell, name, "failed", reason=reason, broken=len(errors), **facts)
    remarks = [f"{len(errors)} of {len(answers)} samples {broke}: {first}"] if errors else []
    return Outcome(
        cell,
        name,
        "ok",
        n=len(scores),
        broken=len(errors),
        score=task.aggregate(scores),
        answers=tuple(answers),
        achieved=achieved(cell, all_answers.methods[cell], all_answers.leaves[cell]),
        change=change_of(model.dtype) if any(answer.again is not None for answer in answers) else "",
        remarks=(*remarks, *all_answers.remarks(cell), *model.remarks()),
        **facts,
    )


def achieved(cell: Cell, method: Method, leaves: Sequence[Leaf]) -> Achieved:
    """What was kept over samples, from leaves without their caches."""
    kept, total = sum(leaf.kept for leaf in leaves), sum(leaf.of for leaf in leaves)
    layers = [sum(counts) / len(leaves) for counts in zip(*(leaf.measured[0] for leaf in leaves), strict=True)]
    return Achieved(
        of=method.of,
        asked_keep=float(method.keep),
        kept=kept,
        total=total,
        keep=kept / total if total else 1.0,
        per_layer=tuple(layers),
        per_head=_per_head(leaves),
        kv_bytes=sum(leaf.measured[1] for leaf in leaves) // len(leaves),
        kv_bytes_dense=sum(leaf.dense_bytes for leaf in leaves) // len(leaves),
        visual_tokens=sum(leaf.visual_tokens for leaf in leaves) // len(leaves),
        parts=_parts(cell, method, leaves) if isinstance(method, Composed) else (),
    )


def _per_head(leaves: Sequence[Leaf]) -> tuple[tuple[float, ...], ...]:
    """Mean entries of every layer's KV heads; empty where the heads of a layer never differ."""
    if not (some := next((leaf.heads for leaf in leaves if leaf.heads), ())):
        return ()
    alike = (
        tuple((count,) * len(heads) for count, heads in zip(leaf.measured[0], some, strict=True)) for leaf in leaves
    )
    counts = [leaf.heads or same for leaf, same in zip(leaves, alike, strict=True)]
    return tuple(
        tuple(sum(numbers) / len(counts) for numbers in zip(*layer, strict=True)) for layer in zip(*counts, strict=True)
    )


def _parts(cell: Cell, method: Composed, leaves: Sequence[Leaf]) -> tuple[KeptBy, ...]:
    """What each method of a composition kept."""
    names = [step.method for step in stored(cell.method, cell.preset)]
    counts = [
        [sum(numbers) for numbers in zip(*shares, strict=True)]
        for shares in zip(*(leaf.shares for leaf in leaves), strict=True)
    ]
    return tuple(
        KeptBy(name, one.of, float(one.keep), kept, total)
        for name, one, (kept, total) in zip(names, method.methods, counts, strict=True)
    )
