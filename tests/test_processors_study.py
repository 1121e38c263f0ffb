"""The study that compares two runs which differ in their image processor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from toy_session import ROOT

from effivlm.records import Outcome
from tests.outcomes import cell, quality, store


@pytest.fixture(scope="module")
def processors() -> Any:
    import sys

    sys.path.insert(0, str(ROOT / "bench_tests" / "studies"))
    import processors

    return processors


def run(folder: Path, *outcomes: Outcome) -> Path:
    folder.mkdir()
    store(folder, outcomes)
    return folder


def test_changed_answers_are_counted_by_setting_over_tasks_dense_apart(processors: Any, tmp_path: Path) -> None:
    chart = "chartqa_micro"
    before = [
        quality(cell(), [1, 1, 0]),
        quality(cell("fastv", "0.10"), [1, 0, 0]),
        quality(cell("fastv", "0.10", chart), [1, 1]),
    ]
    after = [
        before[0],
        quality(cell("fastv", "0.10"), [0, 0, 1], [False, True, False]),
        quality(cell("fastv", "0.10", chart), [1, 1], [True, False]),
        quality(cell("snapkv", "0.10"), [1, 1]),
    ]
    found = processors.counted(run(tmp_path / "one", *before), run(tmp_path / "other", *after))
    lines = processors.table(found).splitlines()[2:]
    assert lines == [
        "| micro_llava | dense | 1.00 | 3 | 0 | 0 | 0 |",
        "| micro_llava | fastv | 0.10 | 5 | 3 | 1 | 1 |",
        "| all | dense | | 3 | 0 | 0 | 0 |",
        "| all | compressed | | 5 | 3 | 1 | 1 |",
    ]


def test_runs_that_asked_something_else_are_refused(processors: Any, tmp_path: Path) -> None:
    one = quality(cell(), [1, 1])
    other = replace(one, answers=tuple(replace(answer, prompt_sha256="1" * 64) for answer in one.answers))
    with pytest.raises(ValueError, match="was asked other questions in the two runs"):
        processors.counted(run(tmp_path / "one", one), run(tmp_path / "other", other))
    with pytest.raises(ValueError, match="have no measured cell in common"):
        processors.counted(tmp_path / "one", run(tmp_path / "third", quality(cell(task="gqa_micro"), [1])))
