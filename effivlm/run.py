"""From a group of cells to outcomes: everything shared is computed once, and every cell answers for itself.

The run is a tree. Cells of one (model, task) share a sample's images, its vision tower, its prefill and its decoding batch up
to the seam at which their methods differ. `Settings.share` False runs every cell alone through the same code.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from io import BytesIO
from typing import Any, cast

from PIL.Image import Image

from effivlm import __version__, registry
from effivlm.decode import Start, greedy
from effivlm.meters import kv_bytes
from effivlm.methods._base import Method
from effivlm.metrics.same import same
from effivlm.models._adapter import Adapter
from effivlm.models._sources import ModelSource
from effivlm.records import Achieved, Answer, Cell, Outcome, Sample, Settings, Unsupported, fingerprint
from effivlm.tasks._base import Task
from effivlm.tree import Leaf, Tree

Progress = Callable[[int, int], None]
THUMBNAIL = 256  # pixels of the longer side


def open_model(source: ModelSource, settings: Settings) -> Adapter:
    """Load the checkpoint of `source` with its family's adapter; ValueError when it is damaged."""
    adapter = cast(type[Adapter], registry.load("models", source.family))
    return adapter.load(source, settings.device, settings.dtype)


def method_of(cell: Cell, seed: int = 0) -> Method:
    """The method of a cell with its preset and budget.

    Raises:
        ValueError: unknown method or preset, naming the choices.
    """
    kind = cast(type[Method], registry.load("methods", cell.method))
    if cell.preset not in kind.presets:
        raise ValueError(
            f"method {cell.method!r} has no preset {cell.preset!r}; choose from: {', '.join(kind.presets)}"
        )
    return kind(keep=cell.budget, seed=seed, **kind.presets[cell.preset])


def task_of(name: str) -> Task:
    return cast(type[Task], registry.load("tasks", name))()


def cell_fingerprint(cell: Cell, source: ModelSource, settings: Settings, part: str = "quality") -> str:
    """Names everything that determines an outcome: model, method and its fields, task, samples, precision and versions."""
    return fingerprint(
        {
            "part": part,
            "model": [cell.model, source.identity],
            "method": [cell.method, cell.preset, cell.keep, dict(registry.declared("methods", cell.method))],
            "task": [cell.task, dict(registry.declared("tasks", cell.task))],
            "settings": [settings.limit, settings.seed, settings.device.split(":")[0], settings.dtype],
            "versions": _versions(),
        }
    )


@cache
def _versions() -> tuple[str, ...]:
    return (__version__, *(version(name) for name in ("torch", "transformers")))


def sample_records(task: str, settings: Settings) -> Iterator[dict[str, Any]]:
    """What the report shows of a task's samples: question, references, a small picture as a data URL (None without one)."""
    for sample in task_of(task).samples(settings.limit, settings.seed):
        yield {
            "kind": "sample",
            "task": task,
            "id": sample.id,
            "prompt": sample.prompt,
            "references": list(sample.references),
            "thumbnail": _thumbnail(next(iter([*sample.images, *sample.video]), None)),
        }


def _thumbnail(image: Image | None) -> str | None:
    if image is None:
        return None
    file = BytesIO()
    try:
        small = image.convert("RGB")
        small.thumbnail((THUMBNAIL, THUMBNAIL))
        small.save(file, "JPEG", quality=60)
    except OSError:  # a torn picture; the answer to its sample carries the error
        return None
    return f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}"


def run_group(
    cells: Sequence[Cell], model: Adapter, settings: Settings, on_progress: Progress | None = None
) -> list[Outcome]:
    """Answer a task's samples under every cell of one (model, task) group.

    The dense cell always runs, first, because every other one is compared with it. One outcome per cell, in the order given,
    dense in front where it was not asked for.

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
    running = {cell: method_of(cell, settings.seed) for cell in ordered}
    answers: dict[Cell, list[Answer]] = {cell: [] for cell in ordered}
    leaves: dict[Cell, list[Leaf]] = {cell: [] for cell in ordered}
    refused: dict[Cell, str] = {}
    with model.seams():
        for number, sample in enumerate(samples):
            asked = {cell: method for cell, method in running.items() if cell not in refused}
            batches = [asked] if settings.share else [{cell: method} for cell, method in asked.items()]
            for batch in batches:
                _answer(batch, model, task, sample, answers, leaves, refused)
            _compare(dense, answers, task)
            if on_progress:
                on_progress(number + 1, len(samples))
    facts: dict[str, Any] = {
        "metric": task.metric,
        "answer_type": task.answer_type,
        "scale": task.scale,
        "engine": "eager",
        "kernel": "sdpa",
        "weights": model.weights,
    }
    return [
        _outcome(
            cell,
            cell_fingerprint(cell, model.source, settings),
            running[cell],
            answers[cell],
            leaves[cell],
            task,
            facts,
        )
        if cell not in refused
        else Outcome(cell, cell_fingerprint(cell, model.source, settings), "unsupported", reason=refused[cell], **facts)
        for cell in ordered
    ]


def _answer(
    batch: dict[Cell, Method],
    model: Adapter,
    task: Task,
    sample: Sample,
    answers: dict[Cell, list[Answer]],
    leaves: dict[Cell, list[Leaf]],
    refused: dict[Cell, str],
) -> None:
    """One sample under the cells of a batch that share what they can."""
    tree = Tree(model, sample, list(batch.values()))
    grown: dict[Cell, Leaf] = {}
    for cell, method in batch.items():
        try:
            grown[cell] = tree.leaf(method)
        except Unsupported as reason:
            refused[cell] = str(reason)
            answers[cell].clear()
        except Exception as error:  # one broken sample is recorded and counted; it must not end the others
            answers[cell].append(_broken(sample, error))
    if not grown:
        return
    starts = [Start(leaf.cache, leaf.token, leaf.position) for leaf in grown.values()]
    try:
        texts = greedy(model.step, starts, task.max_new_tokens, model.eos, model.device)
    except Exception as error:  # as above
        for cell in grown:
            answers[cell].append(_broken(sample, error))
        return
    for (cell, leaf), tokens in zip(grown.items(), texts, strict=True):
        leaves[cell].append(replace(leaf, cache=(), measured=measured(leaf)))
        answers[cell].append(_scored(task, sample, model.decode_text(tokens), tokens, leaf))


def _scored(task: Task, sample: Sample, text: str, tokens: Sequence[int], leaf: Leaf) -> Answer:
    return Answer(
        id=sample.id,
        prompt_sha256=sample.prompt_sha256,
        text=text,
        extracted=task.extract(text),
        score=task.score(text, sample),
        tokens=tuple(tokens),
        prompt_tokens=leaf.length,
        visual_tokens=leaf.visual_tokens,
        kept=leaf.kept,
        of=leaf.of,
    )


def _broken(sample: Sample, error: Exception) -> Answer:
    return Answer(sample.id, sample.prompt_sha256, "", "", None, error=f"{type(error).__name__}: {error}"[:500])


def _compare(dense: Cell, answers: dict[Cell, list[Answer]], task: Task) -> None:
    """Set what the newest answer of every cell has in common with the dense one."""
    reference = answers[dense][-1]
    for given in answers.values():
        if given and given[-1].id == reference.id and not given[-1].error and not reference.error:
            given[-1] = _against(given[-1], reference, task.answer_type)


def _against(answer: Answer, dense: Answer, answer_type: str) -> Answer:
    common = 0
    for ours, theirs in zip(answer.tokens, dense.tokens, strict=False):
        if ours != theirs:
            break
        common += 1
    return replace(
        answer,
        same_as_dense=None if answer_type == "free" else same(answer_type, answer.text, dense.text),
        exact_as_dense=answer.text == dense.text,
        common_prefix_tokens=common,
    )


def measured(leaf: Leaf) -> tuple[tuple[float, ...], int]:
    """Entries per layer and bytes of a compressed prompt, from its tensors."""
    return tuple(layer.kept for layer in leaf.cache), kv_bytes(leaf.cache)


def _outcome(
    cell: Cell,
    name: str,
    method: Method,
    answers: Sequence[Answer],
    leaves: Sequence[Leaf],
    task: Task,
    facts: dict[str, Any],
) -> Outcome:
    scores = [answer.score for answer in answers if answer.score is not None]
    broken = len(answers) - len(scores)
    if not scores:
        reason = next(answer.error for answer in answers if answer.error)
        return Outcome(cell, name, "failed", reason=f"every sample broke; the first: {reason}", broken=broken, **facts)
    remarks = (
        (f"{broken} of {len(answers)} samples broke: {next(a.error for a in answers if a.error)}",) if broken else ()
    )
    return Outcome(
        cell,
        name,
        "ok",
        n=len(scores),
        broken=broken,
        score=task.aggregate(scores),
        answers=tuple(answers),
        achieved=achieved(method, leaves),
        remarks=remarks,
        **facts,
    )


def achieved(method: Method, leaves: Sequence[Leaf]) -> Achieved:
    """What was kept over samples, from leaves whose tensors were `measured`."""
    kept, total = sum(leaf.kept for leaf in leaves), sum(leaf.of for leaf in leaves)
    layers = [sum(counts) / len(leaves) for counts in zip(*(leaf.measured[0] for leaf in leaves), strict=True)]
    return Achieved(
        of=method.of,
        asked_keep=float(method.keep),
        kept=kept,
        total=total,
        keep=kept / total if total else 1.0,
        per_layer=tuple(layers),
        kv_bytes=sum(leaf.measured[1] for leaf in leaves) // len(leaves),
        kv_bytes_dense=sum(leaf.dense_bytes for leaf in leaves) // len(leaves),
        visual_tokens=sum(leaf.visual_tokens for leaf in leaves) // len(leaves),
    )
