"""Nested sessions over the toy world, and short words to look at what they did."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent


def _hears_interrupts() -> None:
    """A session started in the background of a shell ignores SIGINT, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Toy:
    """A copy of this repository's conftest.py and bench_tests/ over the toy world, and short words to look at a run."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        self.limit = 2
        self.path = pytester.path
        options = "--strict-markers -p no:cacheprovider -p no:hypothesispytest"
        settings = f"[pytest]\npythonpath = {ROOT} {ROOT / 'tests'}\naddopts = {options}\n"
        (self.path / "pytest.ini").write_text(settings)
        (self.path / "conftest.py").write_text((ROOT / "conftest.py").read_text())
        (self.path / "bench_tests").mkdir()
        (self.path / "bench_tests" / "conftest.py").write_text("import toy_world\n\ntoy_world.install()\n")
        for path in (ROOT / "bench_tests").glob("test_*.py"):
            (self.path / "bench_tests" / path.name).write_text(path.read_text())
        for name in ("toy_a", "toy_b"):
            self.checkpoint(name)

    def checkpoint(self, name: str, model_type: str = "toy") -> Path:
        folder = self.path / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
        (folder / "model.safetensors").write_bytes(b"")
        return folder

    def wish(self, **wishes: Any) -> None:
        (self.path / "toy.json").write_text(json.dumps(wishes))

    def add(self, code: str, name: str = "conftest.py") -> None:
        """More code for `bench_tests/`, into its conftest.py unless `name` says otherwise."""
        with (self.path / "bench_tests" / name).open("a") as file:
            file.write("\n\n" + code)

    def arguments(self, *arguments: str, run: str = "out") -> list[str]:
        where = [] if any(one.startswith("--vlm-resume") for one in arguments) else ["--vlm-run", run]
        given = " ".join(arguments)
        model = [] if "--vlm-models" in given else ["--vlm-models", "toy_a"]
        device = [] if "--vlm-device" in given else ["--vlm-device", "cpu"]
        return [
            "bench_tests",
            *where,
            *model,
            *device,
            f"--vlm-limit={self.limit}",
            "--vlm-budgets=0.10,0.40",
            *arguments,
        ]

    def run(self, *arguments: str, run: str = "out") -> pytest.RunResult:
        """A session in this process, of the toy model unless the arguments say otherwise."""
        return self.pytester.runpytest_inprocess(*self.arguments(*arguments, run=run))

    def run_apart(self, *arguments: str, run: str = "out") -> pytest.RunResult:
        """A session in a process of its own."""
        return self.pytester.runpytest_subprocess(*self.arguments(*arguments, run=run), timeout=120)

    def start(self, *arguments: str, run: str = "out") -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "pytest", *self.arguments(*arguments, run=run)]
        return self.pytester.popen(
            command,
            preexec_fn=_hears_interrupts,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def log(self, word: str) -> list[str]:
        path = self.path / "toy_log.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.removeprefix(word).strip() for line in lines if line.split()[0] == word]

    def forget(self) -> None:
        (self.path / "toy_log.txt").unlink(missing_ok=True)

    def records(self, run: str = "out") -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.path / run / "outcomes.jsonl").read_text().splitlines()]

    def outcomes(self, run: str = "out") -> dict[tuple[str, str, float], str]:
        """Status by (method, part, keep), the last word on each."""
        return {
            (one["cell"]["method"], one["part"], one["cell"]["keep"]): one["status"]
            for one in self.records(run)
            if one["kind"] == "outcome"
        }

    def report(self, run: str = "out") -> dict[str, Any]:
        return json.loads((self.path / run / "report.json").read_text())  # type: ignore[no-any-return]
