"""The process that sparseml works in, with scripts in its place: what is told of one that fails, and that nothing is left."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from effivlm.weights import _sparseml
from effivlm.weights._sparseml import Worker

WEIGHT = {"weight": torch.arange(6.0).reshape(2, 3)}
START = "import json, os, sys, time\nprint(json.dumps({'sparseml': '1.8.0', 'cuda': False}), flush=True)\n"
ANSWER = "line = json.loads(sys.stdin.readline())\n"
COPY = "import shutil\nshutil.copy(line['tensors'], line['result'])\n"
DONE = "print(json.dumps({'number': line['number']}), flush=True)\n"
LOOP = (
    "import shutil\nfor text in sys.stdin:\n    line = json.loads(text)\n    shutil.copy(line['tensors'], line['result'])\n"
    "    print(json.dumps({'number': line['number'], 'pid': os.getpid()}), flush=True)\n"
)
Fake = Callable[..., Worker]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    """A worker that runs a script of ours instead of its own, under this Python."""
    made: list[Worker] = []
    (tmp_path / "work").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "work"))

    def start(script: str, **limits: float) -> Worker:
        (tmp_path / "worker.py").write_text(script)
        monkeypatch.setattr(_sparseml, "WORKER", tmp_path / "worker.py")
        made.append(Worker(Path(sys.executable), **limits))
        return made[0].start()

    yield start
    for worker in made:
        worker.close()
    assert list((tmp_path / "work").iterdir()) == []


def test_a_worker_serves_one_request_after_another_in_one_process(fake: Fake) -> None:
    worker = fake(START + LOOP)
    assert worker.here == {"sparseml": "1.8.0", "cuda": False}
    for factor in (1.0, -2.0, 0.5):
        weight = {"weight": WEIGHT["weight"] * factor, "squares": torch.ones(3)}
        assert torch.equal(worker.ask("wanda", weight), weight["weight"])
        assert [file.name for file in Path(worker._folder.name).iterdir()] == ["said"]  # nothing adds up
    assert worker.alive


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("import nowhere_to_be_found\n", "code 1.*nowhere_to_be_found"),
        ("print('hello', flush=True)\n", "no JSON object: b'hello'"),
        ("print('[1]', flush=True)\n", "no JSON object"),
        ("raise SystemExit(7)\n", "code 7"),
    ],
    ids=["lacks-a-library", "prints-words", "prints-a-list", "ends"],
)
def test_a_worker_that_does_not_start_says_why(fake: Fake, script: str, told: str) -> None:
    with pytest.raises(ChildProcessError, match=told):
        fake(script)


@pytest.mark.parametrize(
    ("script", "told"),
    [
        (ANSWER + "sys.exit('out of memory')\n", "code 1: out of memory"),
        (ANSWER + "os.kill(os.getpid(), 9)\n", "code -9"),
        (ANSWER + "print('nonsense', flush=True)\n", "no JSON object"),
        (ANSWER + "print(json.dumps({'number': 77}), flush=True)\n", "answered something else.*77"),
        (ANSWER + DONE, "left no result"),
        (ANSWER + "open(line['result'], 'wb').write(b'half a fi')\n" + DONE, "left no result"),
    ],
    ids=["dies", "is-killed", "malformed", "another-number", "no-file", "half-a-file"],
)
def test_a_worker_that_fails_in_a_request_is_told_of_and_gone(fake: Fake, script: str, told: str) -> None:
    worker = fake(START + script)
    with pytest.raises(ChildProcessError, match=told):
        worker.ask("wanda", WEIGHT)
    assert not worker.alive
    with pytest.raises(ChildProcessError, match="is not running"):
        worker.ask("wanda", WEIGHT)


@pytest.mark.parametrize(
    ("tensors", "told"),
    [
        ({"weight": torch.full((2, 3), float("nan"))}, "NaN"),
        ({"weight": torch.ones(1, 3)}, r"no torch.float32 \[2, 3\]"),
        ({"weight": torch.ones(2, 3).half()}, "no torch.float32"),
        ({"bias": torch.ones(2, 3)}, "no torch.float32"),
    ],
    ids=["nan", "shape", "type", "name"],
)
def test_a_result_that_cannot_stand_for_the_weight_is_refused(
    tensors: dict[str, Tensor], told: str, fake: Fake, tmp_path: Path
) -> None:
    save_file(tensors, tmp_path / "wrong.safetensors")
    copied = f"import shutil\nshutil.copy({str(tmp_path / 'wrong.safetensors')!r}, line['result'])\n"
    worker = fake(START + ANSWER + copied + DONE + "sys.stdin.read()\n")
    with pytest.raises(ChildProcessError, match=told):
        worker.ask("wanda", WEIGHT)
    assert not worker.alive


def test_a_worker_that_hangs_is_ended(fake: Fake) -> None:
    worker = fake(START + ANSWER + "print('half a li', end='', flush=True)\ntime.sleep(60)\n", request_s=0.2)
    process, began = worker._process, time.monotonic()
    with pytest.raises(TimeoutError, match=r"did not answer within 0\.2 s"):
        worker.ask("wanda", WEIGHT)
    assert time.monotonic() - began < 10
    assert process.poll() is not None


def test_an_error_of_one_request_leaves_the_worker_for_the_next(fake: Fake) -> None:
    said = "print(json.dumps({'number': line['number'], 'error': 'LinAlgError: not positive'}), flush=True)\n"
    worker = fake(START + ANSWER + said + ANSWER + COPY + DONE + "sys.stdin.read()\n")
    with pytest.raises(ValueError, match=r"cannot prune a weight \[2, 3\]: LinAlgError: not positive"):
        worker.ask("sparsegpt", WEIGHT)
    assert torch.equal(worker.ask("sparsegpt", WEIGHT), WEIGHT["weight"])


def test_without_room_for_the_tensors_nothing_is_written(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = fake(START + LOOP)
    monkeypatch.setattr(_sparseml.shutil, "disk_usage", lambda place: SimpleNamespace(free=5))
    with pytest.raises(OSError, match="given 24 bytes, and 5 are free"):
        worker.ask("wanda", WEIGHT)


def test_the_one_worker_of_a_process_is_started_anew_after_it_was_lost(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Worker] = []

    def another() -> Worker:
        made.append(Worker(Path(sys.executable)))
        return made[-1]

    first = fake(START + LOOP)
    monkeypatch.setattr(_sparseml, "_RUNNING", [first])
    monkeypatch.setattr(_sparseml, "Worker", another)
    assert _sparseml.running() is first
    first._process.kill()
    with pytest.raises(ChildProcessError, match="code -9"):
        first.ask("wanda", WEIGHT)
    assert _sparseml.running() is made[0]
    assert torch.equal(asked(made[0]), WEIGHT["weight"])
    made[0].close()


def asked(worker: Worker) -> Tensor:
    return worker.ask("wanda", WEIGHT)


def test_a_worker_does_not_see_the_python_path_of_who_starts_it(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/some/other/transformers")
    worker = fake("import json, sys\nprint(json.dumps({'path': sys.path}), flush=True)\nsys.stdin.read()\n")
    assert "/some/other/transformers" not in worker.here["path"]
