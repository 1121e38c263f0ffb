"""Synthetic outcomes for tests of the report: small, deterministic, shaped as a run writes them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from effivlm.records import SCHEMA, Achieved, Answer, Cell, Cost, Outcome, dump
from effivlm.report.document import read
from effivlm.report.samples import Facts

HEADER = {
    "kind": "run",
    "schema": SCHEMA,
    "started": "2026-01-01T00:00:00Z",
    "command": "pytest bench_tests",
    "device": {"name": "test device", "driver": "1.0"},
    "versions": {"effivlm": "0.1.0"},
}
CACHE = ("h2o", "look_m", "pyramid_kv", "random_kv", "snapkv")
END = {"kind": "end", "status": "finished"}


def cell(
    method: str = "dense",
    keep: str = "1.00",
    task: str = "docvqa_micro",
    model: str = "micro_llava",
    preset: str = "paper",
) -> Cell:
    return Cell(model, method, preset, keep, task)


def answer(place: int, score: float | None, text: str = "", same: bool | None = None, **fields: Any) -> Answer:
    text = text or f"answer {place}"
    fields.setdefault("error", "" if score is not None else "broken image")
    return Answer(f"s{place}", "0" * 64, text, text, score, same_as_dense=same, exact_as_dense=same, **fields)


def quality(which: Cell, scores: Sequence[float | None], same: Sequence[bool] | None = None, **fields: Any) -> Outcome:
    """A quality outcome whose score is the mean of `scores`; None among them is a broken sample."""
    valid = [score for score in scores if score is not None]
    flags: Sequence[bool | None] = [None] * len(scores) if same is None else same
    texts = ["" if flag in (None, True) else "changed" for flag in flags]
    facts: dict[str, Any] = {
        "n": len(valid),
        "broken": len(scores) - len(valid),
        "score": sum(valid) / len(valid) if valid else None,
        "metric": "anls",
        "answer_type": "short",
        "answers": tuple(answer(*one) for one in zip(range(len(scores)), scores, texts, flags, strict=True)),
        "achieved": achieved(_share(which), of="prompt entries" if which.method in CACHE else "visual tokens"),
    }
    return Outcome(which, "f" * 20, "ok", **{**facts, **fields})


def _share(which: Cell) -> float:
    """The fraction of a budget; a number of tokens is one of a thousand here."""
    return float(which.budget.exact(1000) / 1000)


def achieved(keep: float, total: int = 1000, of: str = "prompt entries") -> Achieved:
    kept = round(keep * total)
    return Achieved(of, keep, kept, total, kept / total, (kept / 10,) * 2, kept * 64, total * 64, total // 2)


def timed(which: Cell, part: str, *rounds: float, engine: str = "eager", **fields: Any) -> Outcome:
    """A ttft outcome in seconds or a decode outcome in milliseconds a token."""
    name = {"ttft": "ttft_s", "decode": "decode_ms_per_token"}[part]
    return Outcome(which, "e" * 20, "ok", part=part, costs={name: Cost(rounds)}, engine=engine, **fields)


def missing(which: Cell, status: str = "failed", reason: str = "out of memory", part: str = "quality") -> Outcome:
    return Outcome(which, "d" * 20, status, part=part, reason=reason)


def lines(outcomes: Iterable[Outcome], header: dict[str, Any] | None = None, end: dict[str, Any] | None = END) -> str:
    """The text of outcomes.jsonl; `end` None leaves out the end line."""
    records = [header or HEADER, *(outcome.to_json() for outcome in outcomes), *([end] if end else [])]
    return "".join(dump(record) + "\n" for record in records)


def store(folder: Path, outcomes: Iterable[Outcome], **options: Any) -> Path:
    path = folder / "outcomes.jsonl"
    path.write_text(lines(outcomes, **options), encoding="utf-8")
    return path


def small_run() -> list[Outcome]:
    """Two methods at two budgets on two tasks of one model, with times, a skip and a failure."""
    found = []
    for task in ("docvqa_micro", "chartqa_micro"):
        dense = cell(task=task)
        found += [
            quality(dense, [1, 1, 1, 1, 0, 1, 1, 1]),
            timed(dense, "ttft", *[0.2] * 6),
            timed(dense, "decode", *[4.0] * 6),
        ]
        for method, keep, right in (
            ("fastv", "0.10", 5),
            ("fastv", "0.40", 6),
            ("snapkv", "0.10", 6),
            ("snapkv", "0.40", 7),
        ):
            which = cell(method, keep, task)
            scores = [1.0] * right + [0.0] * (8 - right)
            same = [True] * right + [False] * (8 - right)
            found += [
                quality(which, scores, same),
                timed(which, "ttft", *[0.2 if method in CACHE else 0.1] * 6),
                timed(which, "decode", *[3.0] * 6),
            ]
    found.append(missing(cell("pyramid_drop", "0.10"), "unsupported", "needs at least 8 layers, the model has 4"))
    found.append(missing(cell("look_m", "0.10"), "failed", "RuntimeError: out of memory"))
    return found


def parsed(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def stored_beside(path: Path) -> Facts:
    """What an outcomes.jsonl holds beside its outcomes."""
    found = Facts()
    read(path, found.add)
    return found
