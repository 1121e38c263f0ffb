"""What EffiVLM-Bench printed (arXiv 2506.00479), to stand beside our numbers for the same setting."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from effivlm import registry

DENSE = "dense"
OG_KEEPS = (0.01, 0.4)
SPEEDUPS = ("ttft", "decode")
OE_MODEL, OE_TASK = "OV-7B", "DocVQA"


@cache
def load() -> Mapping[str, Any]:
    """The shipped tables as printed: names of models, methods and benchmarks are the paper's, scores on their own scales.

    `models`, `methods` and `tasks` lead from our names to the paper's. `weight_keeps` leads from the paper's
    weight settings to budgets.
    """
    found: Mapping[str, Any] = json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))
    return found


def overlay(cells: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Printed values for the settings of measured cells: scores by cell, OP by (model, method, keep), OG by (method, keep),
    and for one model on one task the speed-ups to the first token and while decoding, read off a plot.

    The micro models and tasks are none of the paper's, so nothing is laid over them, and no score over one of a task whose file
    does not say that the two are comparable (DocVQA's printed ones are of another split). A score is on the benchmark's own
    scale, OG in percent; printed OP and OG are over the paper's benchmarks, and OG over its three models (model is None),
    whatever this run measured.
    """
    tables = _tables()
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for cell in cells:
        model, task = (tables.names[kind].get(_plain(cell[kind])) for kind in ("model", "task"))
        method, keep = tables.names["method"].get(_plain(cell["method"])), cell["keep"]
        if model is None or task is None or method is None:
            continue
        own = {"model": cell["model"], "task": cell["task"]}
        for of, key, facts in (
            ("score", (model, method, keep, task), own),
            *((word, (model, method, keep, task, word), own) for word in SPEEDUPS),
            ("op", (model, method, keep), {"model": cell["model"], "task": None}),
            ("og", (method, keep), {"model": None, "task": None}),
        ):
            if key in tables.values and (of != "score" or comparable(cell["task"])):
                value, source = tables.values[key]
                setting = {"method": cell["method"], "keep": keep}
                found[of, key] = {"source": source, **setting, **facts, "of": of, "value": value}
    return list(found.values())


@cache
def comparable(task: str) -> bool:
    """Whether a task's file says that its scores may stand beside the paper's; one that is not installed says nothing."""
    if task not in registry.names("tasks"):
        return False
    return str(registry.inherited("tasks", task, "comparable")).startswith("yes")


def speedup(method: str, keep: float, word: str) -> float | None:
    """The printed speed-up ("ttft" or "decode") of a method at a budget, of the one model and task that were plotted."""
    tables = _tables()
    found = tables.values.get((OE_MODEL, tables.names["method"].get(_plain(method)), keep, OE_TASK, word))
    return found and found[0]


@dataclass(frozen=True, slots=True)
class _Tables:
    """Our plain names to the paper's by kind; and (value, source) by the paper's names: 5 for a speed-up, 4 a score, 3 an OP."""

    names: Mapping[str, Mapping[str, str]]
    values: Mapping[tuple[Any, ...], tuple[float, str]]


@cache
def _tables() -> _Tables:
    data = load()
    benchmarks = data["benchmarks"]
    values: dict[tuple[Any, ...], tuple[float, str]] = {}

    def put(table: str, key: tuple[Any, ...], value: float) -> None:
        values[key] = (value, f"{data['source']}, {data['sources'][table]}")

    for model, scores in data["dense"].items():
        for task, score in zip(benchmarks, scores, strict=True):
            put("dense", (model, DENSE, 1.0, task), score)
    for table, keeps in (("pruning", None), ("parameter", data["weight_keeps"])):
        for model, setting, method, op, scores in data[table]:
            keep = setting if keeps is None else keeps.get(setting)
            if keep is not None:
                put(table, (model, method, keep), op)
                for task, score in zip(benchmarks, scores, strict=True):
                    put(table, (model, method, keep, task), score)
    for model, task, method, scores in data["cache"]:
        for keep, score in zip(data["cache_budgets"], scores, strict=True):
            put("cache", (model, method, keep, task), score)
    for method, *printed in data["oe"]:
        for word, speedups in zip(SPEEDUPS, printed, strict=True):
            for keep, value in zip(data["cache_budgets"], speedups, strict=True):
                put("oe", (OE_MODEL, method, keep, OE_TASK, word), value)
    for method, *printed in data["og"]:
        for keep, og in zip(OG_KEEPS, printed, strict=True):
            put("og", (method, keep), og)
    ours = {
        kind: {_plain(name): theirs for name, theirs in data[f"{kind}s"].items()}
        for kind in ("model", "task", "method")
    }
    return _Tables({**ours, "method": {**ours["method"], DENSE: DENSE}}, values)


def _plain(name: str) -> str:
    return name.replace("_", "")
