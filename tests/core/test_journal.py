"""What a sample gave is stored as it is made, and taking it up again equals having asked."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import twins
from toy_task import Toy, cells

from effivlm.models._adapter import Adapter
from effivlm.models._sources import resolve
from effivlm.records import Cell, Outcome, Settings
from effivlm.run.gave import Asked
from effivlm.run.group import cell_fingerprint, open_model, run_group
from effivlm.session import journal
from effivlm.session.journal import Journal

ROOT = Path(__file__).parent.parent.parent
SETTINGS = Settings(limit=5)
METHODS = ("dense", "fastv", "snapkv", "adakv", "pyramiddrop", "visionzip")
GROUP = [cell for cell in cells(keeps=("0.30",)) if cell.method in METHODS]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    """One family is enough: what is stored knows none."""
    folder = twins.build("llava_onevision", tmp_path_factory.mktemp("journal"), layers=2)
    return open_model(resolve(f"twin={folder}"), Settings())


@pytest.fixture
def names(model: Adapter, toy_task: Toy) -> dict[Cell, str]:
    """Fingerprints of all cells of the toy group, dense among them."""
    return {cell: cell_fingerprint(cell, model.source, SETTINGS) for cell in {*GROUP, GROUP[0].dense}}


class Killed(BaseException):
    pass


def killed_after(count: int, kept: Journal, names: dict[Cell, str]) -> Callable[[int, Asked], None]:
    def write(number: int, found: Asked) -> None:
        if number == count:
            raise Killed
        kept.write(number, found, names)

    return write


@pytest.mark.usefixtures("toy_task")
@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("share", [True, False])
def test_a_group_gone_on_with_ends_as_if_nothing_had_happened(
    count: int, share: bool, model: Adapter, tmp_path: Path, names: dict[Cell, str]
) -> None:
    settings = replace(SETTINGS, share=share)
    whole_notes: list[Any] = []
    whole = run_group(GROUP, model, settings, on_note=whole_notes.append)
    with pytest.raises(Killed):
        run_group(GROUP, model, settings, on_answers=killed_after(count, Journal(tmp_path, 1), names))
    asked: list[int] = []
    notes: list[Any] = []
    stored = Journal(tmp_path, 2).stored(names)
    again = run_group(GROUP, model, settings, None, notes.append, lambda number, found: asked.append(number), stored)
    assert asked == list(range(count, 5))
    assert again == whole
    assert [one.to_json() for one in again] == [one.to_json() for one in whole]
    assert notes == json.loads(json.dumps(whole_notes))


def stored_of(model: Adapter, folder: Path, names: dict[Cell, str], session: int = 1) -> dict[int, Asked]:
    kept = Journal(folder, session)
    run_group(list(names), model, SETTINGS, on_answers=lambda number, found: kept.write(number, found, names))
    return Journal(folder, session + 1).stored(names)


@pytest.mark.usefixtures("toy_task")
def test_answers_under_another_fingerprint_or_of_a_cell_that_failed_since_are_not_taken_up(
    model: Adapter, tmp_path: Path, names: dict[Cell, str]
) -> None:
    stored = stored_of(model, tmp_path, names)
    gone = {cell for one in stored.values() for cell in (*one.refused, *one.failed)}
    told = {number: {*one.answers, *gone} for number, one in stored.items()}
    assert told == {number: set(names) for number in range(5)}
    cell = next(cell for cell in names if cell.method == "snapkv")
    changed = Journal(tmp_path, 2).stored({**names, cell: "0" * 20})
    assert {cell in one.answers for one in changed.values()} == {False}
    assert {cell.dense in one.answers for one in changed.values()} == {True}
    since = Journal(tmp_path, 2, {cell: 1}).stored(names)
    assert {cell in one.answers for one in since.values()} == {False}
    before = Journal(tmp_path, 2, {cell: 0}).stored(names)
    assert {cell in one.answers for one in before.values()} == {True}


def test_a_stored_answer_to_another_question_is_asked_again(
    model: Adapter, tmp_path: Path, names: dict[Cell, str], toy_task: Toy
) -> None:
    stored = stored_of(model, tmp_path, names)
    samples = list(toy_task.samples(5, 0))
    samples[2] = replace(samples[2], prompt=f"{samples[2].prompt} Please.")
    toy_task.samples = lambda limit, seed: samples  # type: ignore[method-assign]
    asked: list[int] = []
    run_group(list(names), model, SETTINGS, on_answers=lambda number, _: asked.append(number), stored=stored)
    assert asked == [2]


@pytest.mark.usefixtures("toy_task")
def test_damaged_and_foreign_lines_cost_their_samples_alone(
    model: Adapter, tmp_path: Path, names: dict[Cell, str]
) -> None:
    stored_of(model, tmp_path, names)
    (path,) = tmp_path.glob(journal.PATTERN)
    lines = path.read_text().splitlines()
    damaged = [json.dumps({**json.loads(lines[1]), "cells": 5}), json.dumps({**json.loads(lines[2]), "number": None})]
    path.write_text("\n".join([lines[0], *damaged, "42", "[]", "{}", lines[3], lines[4][: len(lines[4]) // 2]]))
    assert sorted(Journal(tmp_path, 2).stored(names)) == [0, 3]


ARGUMENTS = ("bench_tests", "-q", "-k", "quality", "--vlm-methods=dense,snapkv", "--vlm-budgets=0.10")
WORLD = ("--vlm-device=cpu", "--vlm-limit=8", "-p", "no:cacheprovider")


def start(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": ""}
    environment = {name: value for name, value in environment.items() if not name.startswith("PYTEST_XDIST")}
    command = [sys.executable, "-m", "pytest", *ARGUMENTS, *WORLD, *arguments]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    return subprocess.Popen(command, cwd=ROOT, env=environment, **quiet)


def answered(folder: Path) -> int:
    return sum(1 for _ in journal.lines(folder))


def measured(folder: Path) -> dict[str, dict[str, Any]]:
    """The last outcome of each cell, without what differs from session to session."""
    found = {}
    for line in (folder / "outcomes.jsonl").read_text().split("\n"):
        if line.startswith('{"kind":"outcome"'):
            record = json.loads(line)
            found[Outcome.from_json(record).cell.id] = record
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert start(folder, f"--vlm-run={folder}").wait(timeout=300) == 0
    return folder


@pytest.mark.parametrize(("seed", "workers"), [(0, ()), (1, ("-n2",))])
def test_a_session_killed_at_any_moment_loses_the_sample_in_work_alone(
    seed: int, workers: tuple[str, ...], whole: Path, tmp_path: Path
) -> None:
    draw, folder = random.Random(seed), tmp_path / "killed"
    process, before = start(tmp_path, f"--vlm-run={folder}", *workers), draw.randrange(1, 7)
    deadline = time.monotonic() + 120
    while answered(folder) < before and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert answered(folder) >= before
    assert start(tmp_path, f"--vlm-resume={folder}").wait(timeout=300) == 0
    assert measured(folder) == measured(whole)
    assert not list(folder.glob(journal.PATTERN)), "a finished run needs none"
