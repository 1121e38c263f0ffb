"""A mirror of small sets for all benchmarks and a tiny model, each made once, and tasks that accept so few rows."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

import published_sets
import twins
from published_sets import Opened

from effivlm import registry
from effivlm.tasks._base import Task
from effivlm.tasks._benchmark import Benchmark


@pytest.fixture(scope="session")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mirror")
    for name in published_sets.BUILDERS:
        published_sets.build(name, root)
    return root


@pytest.fixture(scope="session")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model."""
    return twins.build("internvl2_5", tmp_path_factory.mktemp("twin"), layers=2)


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records of sets and caches of tables go to the test's folder."""
    monkeypatch.setenv("EFFIVLM_DATA", str(tmp_path / "data"))


@pytest.fixture
def opened(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> Opened:
    """A task by name, over the mirror (or the folder given), told that its set has as many rows as it finds."""

    def made(name: str, data: Path | str | None = None, family: str = "", rows: int = 0) -> Task:
        kind = registry.load("tasks", name)
        for attribute in ("source", "pictures"):
            if hasattr(kind, attribute):
                monkeypatch.setattr(kind, attribute, replace(getattr(kind, attribute), rows=rows))
        task: Task = kind()
        assert isinstance(task, Benchmark)
        task.data, task.family = str(mirror if data is None else data), family
        return task

    return made
