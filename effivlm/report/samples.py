"""The samples on which compression changed the answer, few enough for a page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effivlm.records import Answer, Cell, Outcome
from effivlm.report.document import records

SHOWN = 600
TEXT = 600
DENSE = "dense"
Facts = Mapping[tuple[str, str], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Changed:
    """Samples for the viewer, and how many changed answers there are in all."""

    shown: list[dict[str, Any]]
    total: int


def facts(path: Path) -> Facts:
    """What the run stored of its samples: {"kind": "sample", "task", "id", "prompt", "references", "thumbnail"} by
    (task, id).

    The lines are optional; `thumbnail` is a data: address of a picture.
    """
    found = (record for _, record in records(path) if record and record.get("kind") == "sample")
    return {(str(one.get("task")), str(one.get("id"))): one for one in found}


def changed(outcomes: Iterable[Outcome], known: Facts, limit: int = SHOWN) -> Changed:
    """At most `limit` changed answers, taken in turn from every cell, so that none crowds out the others."""
    quality = {outcome.cell: outcome for outcome in outcomes if outcome.part == "quality"}
    quality = {cell: outcome for cell, outcome in quality.items() if outcome.status == "ok"}
    dense = {
        cell.group: {answer.id: answer for answer in outcome.answers}
        for cell, outcome in quality.items()
        if cell.method == DENSE
    }
    queues = [
        _changed_in(outcome, dense.get(cell.group, {})) for cell, outcome in quality.items() if cell.method != DENSE
    ]
    picked: list[dict[str, Any]] = []
    for turn in range(max(map(len, queues), default=0)):
        for queue in queues:
            if turn < len(queue) and len(picked) < limit:
                picked.append(_describe(*queue[turn], known))
    return Changed(picked, sum(map(len, queues)))


def _changed_in(outcome: Outcome, dense: Mapping[str, Answer]) -> list[tuple[Cell, Answer, Answer]]:
    """Changed answers of one cell, those that changed the score most first."""
    pairs = [
        (outcome.cell, answer, dense[answer.id])
        for answer in outcome.answers
        if answer.id in dense and not answer.error and not _same(answer, dense[answer.id])
    ]
    return sorted(pairs, key=lambda pair: -abs((pair[1].score or 0.0) - (pair[2].score or 0.0)))


def _same(answer: Answer, dense: Answer) -> bool:
    if answer.same_as_dense is not None:
        return answer.same_as_dense
    return answer.text == dense.text


def _describe(cell: Cell, answer: Answer, dense: Answer, known: Facts) -> dict[str, Any]:
    sample = known.get((cell.task, answer.id), {})
    references: Sequence[Any] = sample.get("references") or ()
    thumbnail = sample.get("thumbnail")
    return {
        "cell": cell.id,
        "model": cell.model,
        "method": cell.method,
        "preset": cell.preset,
        "keep": float(cell.keep),
        "task": cell.task,
        "sample": _cut(answer.id),
        "prompt": _cut(str(sample["prompt"])) if sample.get("prompt") else None,
        "prompt_sha256": answer.prompt_sha256,
        "references": [_cut(str(reference)) for reference in references[:5]],
        "thumbnail": thumbnail if isinstance(thumbnail, str) and thumbnail.startswith("data:image/") else None,
        "dense": {"text": _cut(dense.text), "score": dense.score},
        "compressed": {"text": _cut(answer.text), "score": answer.score},
        "prefix_tokens": answer.common_prefix_tokens,
    }


def _cut(text: str) -> str:
    return text if len(text) <= TEXT else f"{text[:TEXT]}… [cut: {len(text):,} characters in all]"
