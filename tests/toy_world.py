"""A world in which a whole session takes milliseconds: toy names, a toy run, a torch of a few attributes.

`install()` puts it in the place of the real one in this process. What happens is written to `toy_log.txt`, what should
happen is read from `toy.json`, both in the current folder.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

from effivlm import registry
from effivlm.records import Achieved, Answer, Cell, Cost, Outcome, Settings, Unsupported, fingerprint
from effivlm.run.sharding import numbers_of, waits
from effivlm.timing.rounds import rounds_of


class Dense:
    budgeted = False
    presets: ClassVar[dict[str, dict[str, int]]] = {"paper": {}}


class Fastv:
    seam = "layer"
    presets: ClassVar[dict[str, dict[str, int]]] = {"paper": {}}


class Snapkv:
    seam = "cache"
    presets: ClassVar[dict[str, dict[str, int]]] = {"paper": {}, "effivlm": {"window": 8}}


class Reading:
    version = 1


class Counting:
    version = 1


class ToyFamily:
    model_type = "toy"
    checkpoints: ClassVar[dict[str, str]] = {"toy_a": "./toy_a", "toy_b": "./toy_b"}


NAMES = {
    "methods": {"dense": "Dense", "fastv": "Fastv", "snapkv": "Snapkv"},
    "tasks": {"docvqa_micro": "Reading", "count_micro": "Counting"},
    "models": {"toy_family": "ToyFamily"},
}


def install() -> None:
    entries = {
        kind: {name: registry.Entry(name, __name__, cls) for name, cls in of.items()} for kind, of in NAMES.items()
    }
    registry.entries = lambda kind: entries[kind]  # type: ignore[assignment]
    registry.load = lambda kind, name: globals()[NAMES[kind][name]]  # type: ignore[assignment]
    registry.declared.cache_clear()
    registry.inherited.cache_clear()
    registry._outline.cache_clear()
    sys.modules["torch"] = _module("torch", **_torch())
    sys.modules["effivlm.run.group"] = _module(
        "effivlm.run.group",
        open_model=open_model,
        run_group=run_group,
        cell_fingerprint=cell_fingerprint,
        Group=Group,
    )
    sys.modules["effivlm.run.assembling"] = _module(
        "effivlm.run.assembling",
        assembled=assembled,
        still_answered=lambda cells, settings, family, stored: set(stored),
        count=lambda task, settings, family: settings.limit,
    )
    sys.modules["effivlm.run.journal"] = _module("effivlm.run.journal", line_of=line_of, asked_of=asked_of)
    sys.modules["effivlm.models._memory"] = _module("effivlm.models._memory", needs=needs)
    sys.modules["effivlm.timing.timing"] = _module("effivlm.timing.timing", prepare_timing=prepare_timing)


def _module(name: str, **content: Any) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(content)
    return module


def _torch() -> dict[str, Any]:
    gpus = wish("gpus", 0)
    cuda = SimpleNamespace(
        is_available=lambda: gpus > 0,
        device_count=lambda: gpus,
        get_device_properties=lambda device: SimpleNamespace(uuid=f"toy-{device}", total_memory=wish("memory", 1)),
        set_device=lambda device: note("device", device),
        empty_cache=lambda: note("emptied"),
    )
    return {"cuda": cuda, "manual_seed": lambda seed: None, "set_num_threads": lambda count: note("threads", count)}


def needs(source: Any, dtype: str) -> SimpleNamespace:
    return SimpleNamespace(weights=sum(path.stat().st_size for path in Path(source.source).glob("*.safetensors")))


def wish(name: str, default: Any) -> Any:
    path = Path("toy.json")
    return json.loads(path.read_text()).get(name, default) if path.exists() else default


def note(*words: object) -> None:
    with Path("toy_log.txt").open("a") as file:
        file.write(" ".join(map(str, words)) + "\n")


class Model:
    def __init__(self, name: str) -> None:
        self.name = name

    def close(self) -> None:
        note("close", self.name)


def open_model(source: Any, settings: Settings) -> Model:
    note("open", source.name, settings.device)
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        note("cards", source.name, len(os.environ["CUDA_VISIBLE_DEVICES"].split(",")))
    if source.name in wish("corrupt", []):
        raise ValueError(f"model {source.name!r}: its weights are damaged")
    return Model(source.name)


def cell_fingerprint(cell: Cell, source: Any, settings: Settings, part: str = "quality") -> str:
    return fingerprint({"cell": cell.id, "part": part, "limit": settings.limit})


def _sample_record(task: str, number: int) -> dict[str, Any]:
    return {"kind": "sample", "task": task, "id": f"{task}-{number}", "prompt": "?", "references": [], "pictures": []}


def run_group(
    cells: Sequence[Cell],
    model: Model,
    settings: Settings,
    on_progress: Callable[[int, int], None],
    on_note: Callable[[dict[str, Any]], None],
    *journal: object,
) -> list[Outcome]:
    note("group", *(cell.id for cell in cells))
    if wish("boom", "") == cells[0].task:
        raise RuntimeError("the toy run broke")
    dense = Cell(cells[0].model, "dense", "paper", "1.00", cells[0].task)
    for done in range(settings.limit):
        time.sleep(wish("sleep", 0.0))
        on_note(_sample_record(dense.task, done))
        on_progress(done + 1, settings.limit)
    for cell in cells if wish("kept", False) else ():
        for _ in range(2):  # a line may come twice
            on_note(_kept(cell))
    return [_outcome(cell, settings) for cell in ([] if dense in cells else [dense]) + list(cells)]


@dataclass
class Asked:
    """What a sample gave: the cells that answered it."""

    answers: dict[Cell, str] = field(default_factory=dict)
    leaves: dict[Cell, str] = field(default_factory=dict)
    refused: dict[Cell, str] = field(default_factory=dict)
    failed: dict[Cell, str] = field(default_factory=dict)
    lacking: list[tuple[Cell, str, str]] = field(default_factory=list)
    notes: list[dict[str, Any]] = field(default_factory=list)
    held: int = 0

    @property
    def ends(self) -> tuple[dict[Cell, str], ...]:
        return self.answers, self.refused, self.failed


def line_of(number: int, found: Asked, names: dict[Cell, str]) -> dict[str, Any]:
    cells = [{"cell": cell.to_json(), "fingerprint": names[cell]} for cell in found.answers]
    first = next(iter(found.answers))
    head = {"kind": "answers", "model": first.model, "task": first.task, "number": number}
    return {**head, "cells": cells, "notes": found.notes}


def asked_of(line: dict[str, Any], names: dict[Cell, str]) -> Asked:
    cells = [Cell.from_json(one["cell"]) for one in line["cells"]]
    return Asked({cell: "yes" for cell in cells if cell in names}, notes=line["notes"])


class Group:
    """A group that is asked in parts, beside other workers."""

    def __init__(self, cells: Sequence[Cell], model: Model, settings: Settings, expects: bool) -> None:
        note("begun", os.getpid(), cells[0].task)
        self.cells, self.total, self.how = cells, settings.limit, {"total": settings.limit}
        if wish("boom", "") == cells[0].task:
            raise RuntimeError("the toy run broke")

    def answers(self) -> None:
        return None

    def through(self, numbers: range, stored: dict[int, Asked], answers: None) -> Iterator[tuple[int, Asked, bool]]:
        deadline = time.monotonic() + 60
        while _processes() < wish("gather", 1) and time.monotonic() < deadline:
            time.sleep(0.01)
        for number in numbers:
            if known := stored.get(number):
                yield number, known, True
                continue
            time.sleep(wish("sleep", 0.0))
            if wish("deadly", "") == self.cells[0].task:
                os.kill(os.getpid(), signal.SIGKILL)
            note("asked", os.getpid(), self.cells[0].task, number)
            notes = [_sample_record(self.cells[0].task, number)]
            if wish("kept", False) and number == 0:
                notes += [_kept(cell) for cell in {*self.cells, self.cells[0].dense}]
            yield number, Asked(dict.fromkeys({*self.cells, self.cells[0].dense}, "yes"), notes=notes), False


def _processes() -> int:
    """How many have begun a group so far."""
    return len({line.split()[1] for line in Path("toy_log.txt").read_text().splitlines() if line.startswith("begun ")})


def assembled(
    cells: Sequence[Cell],
    settings: Settings,
    family: str,
    names: dict[Cell, str],
    stored: dict[int, Asked],
    how: dict[str, Any],
    on_note: Callable[[dict[str, Any]], None],
) -> tuple[list[Outcome], list[int]]:
    missing = [number for number in numbers_of(settings.shard, settings.limit) if number not in stored]
    if missing:
        return [], missing
    note("group", *(cell.id for cell in cells))
    for found in stored.values():
        for line in found.notes:
            on_note(line)
    dense = cells[0].dense
    made = [_outcome(cell, settings) for cell in ([] if dense in cells else [dense]) + list(cells)]
    waiting = {"status": "unsupported", "reason": waits(settings.shard), "n": 0, "score": None, "achieved": None}
    return [replace(one, **waiting) for one in made] if settings.shard else made, []


def _kept(cell: Cell) -> dict[str, Any]:
    what = {"grid": [[1, 2, 2]], "shows": [[0, 1]], "layers": {"0-1": "gA=="}}
    return {"kind": "kept", "task": cell.task, "sample": f"{cell.task}-0", "cell": cell.to_json(), **what}


def _outcome(cell: Cell, settings: Settings) -> Outcome:
    name = cell_fingerprint(cell, None, settings)
    if cell.method in wish("unsupported", []):
        return Outcome(cell, name, "unsupported", reason=f"{cell.method} cannot do this")
    if cell.id in wish("failing", []):
        return Outcome(cell, name, "failed", reason="every sample broke")
    text = "x" * wish("length", 3)
    answers = tuple(
        Answer(f"s{place}", "0" * 64, text, text, 0.5, same_as_dense=True) for place in range(settings.limit)
    )
    keep = float(cell.budget)
    achieved = Achieved("entries", keep, round(100 * keep), 100, round(100 * keep) / 100)
    return Outcome(
        cell,
        name,
        "ok",
        n=settings.limit,
        score=0.5,
        metric="anls",
        answer_type="short",
        answers=answers,
        achieved=achieved,
    )


class Timing:
    def __init__(self, cell: Cell, settings: Settings) -> None:
        self.cell, self.settings = cell, settings

    def ttft(self) -> float:
        note("ttft", self.cell.id)
        return 0.25

    def decode(self) -> float:
        note("decode", self.cell.id)
        return 8.0

    def rounds(self, part: str) -> list[float]:
        return rounds_of(self.ttft if part == "ttft" else self.decode)

    def outcome(self, part: str, rounds: Sequence[float], remarks: Sequence[str]) -> Outcome:
        unit = {"ttft": "ttft_s", "decode": "decode_ms_per_token"}[part]
        name = cell_fingerprint(self.cell, None, self.settings, part)
        return Outcome(self.cell, name, "ok", part=part, n=1, costs={unit: Cost(tuple(rounds))}, remarks=tuple(remarks))


def prepare_timing(cell: Cell, model: Model, settings: Settings) -> Timing:
    note("prepare", cell.id)
    if cell.method in wish("unsupported", []):
        raise Unsupported(f"{cell.method} cannot do this")
    return Timing(cell, settings)


def kill_once() -> None:
    """SIGKILL this process, the first time that anybody calls."""
    try:
        Path("killed").touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
