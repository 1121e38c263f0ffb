"""Samples for the viewer: those on which compression changed the answer first, few enough for a page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from effivlm.records import Answer, Cell, Outcome
from effivlm.report.collector import paused

SHOWN = 600
UNCHANGED = 120
TEXT = 600
PICTURES = 16
RIGHT = 0.5
DENSE = "dense"
_CELL = ("model", "method", "preset", "keep")
_KEPT = ("task", "sample", "cell", "grid", "shows", "layers")


@dataclass(frozen=True, slots=True)
class Facts:
    """What a run stored beside its outcomes: sample lines by (task, id), and which visual tokens a cell kept of a sample
    by (task, id, model, method, preset, keep).

    A sample line holds `task`, `id`, `prompt`, `references`, `thumbnail` and `pictures` (data: addresses). A kept line
    holds `task`, `sample`, `cell`, `grid` ([[blocks, rows, columns]] of tokens in prompt order), `shows` ([first, count] of
    the pictures that each entry of the grid is about) and `layers` (span of layers -> base64 of one bit for each token, the
    first in the highest bit of the first byte); one that lacks any of them is left out.
    """

    samples: dict[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)
    kept: dict[tuple[Any, ...], Mapping[str, Any]] = field(default_factory=dict)

    def add(self, record: Mapping[str, Any]) -> None:
        """Take a line of kind "sample" or "kept"; a line of any other kind is nothing to it."""
        if record.get("kind") == "sample":
            self.samples[str(record.get("task")), str(record.get("id"))] = record
        elif record.get("kind") == "kept" and set(_KEPT) <= set(record):
            cell = record["cell"]
            self.kept[str(record.get("task")), str(record.get("sample")), *(cell.get(key) for key in _CELL)] = record


@dataclass(frozen=True, slots=True)
class Changed:
    """Samples for the viewer, and how many changed answers there are in all."""

    shown: list[dict[str, Any]]
    total: int


@dataclass(frozen=True, slots=True)
class _Pair:
    cell: Cell
    answer: Answer
    dense: Answer

    @property
    def same(self) -> bool:
        flag = self.answer.same_as_dense
        return self.answer.text == self.dense.text if flag is None else flag

    @property
    def moved(self) -> float:
        return abs((self.answer.score or 0.0) - (self.dense.score or 0.0))


@paused()
def changed(outcomes: Iterable[Outcome], known: Facts, limit: int = SHOWN, unchanged: int = UNCHANGED) -> Changed:
    """At most `limit` changed answers and then `unchanged` others, each taken in turn from every cell, so that none
    crowds out the others."""
    quality = {outcome.cell: outcome for outcome in outcomes if outcome.part == "quality"}
    quality = {cell: outcome for cell, outcome in quality.items() if outcome.status == "ok"}
    dense = {
        cell.group: {answer.id: answer for answer in outcome.answers}
        for cell, outcome in quality.items()
        if cell.method == DENSE
    }
    pairs = [_pairs(outcome, dense.get(cell.group, {})) for cell, outcome in quality.items() if cell.method != DENSE]
    different = [sorted((one for one in queue if not one.same), key=lambda one: -one.moved) for queue in pairs]
    alike = [[one for one in queue if one.same] for queue in pairs]
    shown = [*_in_turn(different, limit), *_in_turn(alike, unchanged)]
    return Changed([_describe(one, known) for one in shown], sum(map(len, different)))


def _pairs(outcome: Outcome, dense: Mapping[str, Answer]) -> list[_Pair]:
    return [
        _Pair(outcome.cell, answer, dense[answer.id])
        for answer in outcome.answers
        if answer.id in dense and not answer.error and answer.prompt_sha256 == dense[answer.id].prompt_sha256
    ]


def _in_turn(queues: Sequence[Sequence[_Pair]], limit: int) -> list[_Pair]:
    picked: list[_Pair] = []
    for turn in range(max(map(len, queues), default=0)):
        picked += [queue[turn] for queue in queues if turn < len(queue)]
        if len(picked) >= limit:
            break
    return picked[:limit]


def _describe(pair: _Pair, known: Facts) -> dict[str, Any]:
    cell, answer, dense = pair.cell, pair.answer, pair.dense
    sample = known.samples.get((cell.task, answer.id), {})
    references: Sequence[Any] = sample.get("references") or ()
    kept = known.kept.get((cell.task, answer.id, cell.model, cell.method, cell.preset, cell.budget.stored))
    return {
        "model": cell.model,
        "method": cell.method,
        "preset": cell.preset,
        "keep": cell.budget.stored,
        "task": cell.task,
        "sample": _cut(answer.id),
        "prompt": _cut(str(sample["prompt"])) if sample.get("prompt") else None,
        "prompt_sha256": answer.prompt_sha256,
        "references": [_cut(str(reference)) for reference in references[:5]],
        "pictures": _pictures(sample),
        "dense": {"text": _cut(dense.text), "score": dense.score},
        "compressed": {"text": _cut(answer.text), "score": answer.score},
        "prefix_tokens": answer.common_prefix_tokens,
        "dense_tokens": len(dense.tokens),
        "forced": getattr(answer, "forced", None),
        "same": pair.same,
        "flip": _flip(pair),
        "kept": kept and {"grid": kept["grid"], "shows": kept["shows"], "layers": kept["layers"]},
    }


def _pictures(sample: Mapping[str, Any]) -> list[str]:
    """Data addresses of the sample's pictures or frames; any other address would ask a network for it."""
    found = [*(sample.get("pictures") or [sample.get("thumbnail")])][:PICTURES]
    return [one for one in found if isinstance(one, str) and one.startswith("data:image/")]


def _flip(pair: _Pair) -> str:
    """What happened to right and wrong, in the words of the document's `flips`; "" where a score is missing."""
    before, after = pair.dense.score, pair.answer.score
    if before is None or after is None:
        return ""
    if before >= RIGHT and after >= RIGHT:
        return "both_right"
    if before >= RIGHT or after >= RIGHT:
        return "right_to_wrong" if before >= RIGHT else "wrong_to_right"
    return "both_wrong_same" if pair.same else "both_wrong_different"


def _cut(text: str) -> str:
    return text if len(text) <= TEXT else f"{text[:TEXT]}… [cut: {len(text):,} characters in all]"
