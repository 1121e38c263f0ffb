"""A user's own set through whole sessions: alone, beside another worker, in shards, timed, and scored again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_folder import own_set, row

ROOT = Path(__file__).parents[2]
ROWS = [row(number % 3, id=f"q{number}", answers=["cat", str(number)]) for number in range(5)]


def called(*words: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def session(folder: Path, words: str, run: Path, *more: str) -> list[dict[str, Any]]:
    """The outcomes of a session over the set, in the order of their cells."""
    methods = ("--vlm-methods=dense,snapkv", "--vlm-budgets=0.20")
    called("pytest", "bench_tests", "-q", "-k", words, f"--vlm-tasks=own={folder}", f"--vlm-run={run}", *methods, *more)
    return outcomes(run)


def outcomes(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "outcomes.jsonl").read_text(encoding="utf-8").splitlines()]
    kept = ("cell", "part", "status", "score", "answers", "reason")
    found = [{word: line.get(word) for word in kept} for line in lines if line["kind"] == "outcome"]
    return sorted(found, key=lambda line: json.dumps(line["cell"]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return own_set(tmp_path_factory.mktemp("set") / "own", ROWS, {"max_new_tokens": 6})


@pytest.fixture(scope="module")
def alone(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("alone") / "run"
    session(folder, "quality", run)
    return run


def test_every_question_of_the_set_is_answered(alone: Path) -> None:
    found = outcomes(alone)
    assert [(one["cell"]["method"], one["status"]) for one in found] == [("dense", "ok"), ("snapkv", "ok")]
    assert [len(one["answers"]) for one in found] == [len(ROWS)] * 2


def test_workers_and_shards_answer_as_one_process(folder: Path, alone: Path, tmp_path: Path) -> None:
    assert session(folder, "quality", tmp_path / "two", "-n", "2") == outcomes(alone)
    for place in (1, 2):
        session(folder, "quality", tmp_path / f"shard{place}", f"--vlm-shard={place}/2")
    shards = [str(tmp_path / f"shard{place}") for place in (1, 2)]
    called("effivlm", "report", *shards, "--out", str(tmp_path / "whole"))
    assert outcomes(tmp_path / "whole") == outcomes(alone)


def test_its_answers_are_scored_again_and_it_is_timed(folder: Path, alone: Path, tmp_path: Path) -> None:
    before = outcomes(alone)
    called("effivlm", "rescore", str(alone))
    assert outcomes(alone) == before
    (timed,) = session(folder, "ttft and dense", tmp_path / "timed")
    assert (timed["part"], timed["status"]) == ("ttft", "ok")
