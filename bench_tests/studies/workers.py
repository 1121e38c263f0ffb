"""What more workers gain on one task: `python bench_tests/studies/workers.py` on a machine of several GPUs.

One task of drawn pictures (`real_size.py`), all its samples in one group, is run by `pytest -n` with 1, 2, ... workers, a GPU
each. Their journals are watched as they grow: samples a second from the moment when every worker has its steps captured until the
last answer, so that what the last worker waits for counts; and by how many seconds the first was done before the last.
Not a test: what it measures depends on the machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from real_size import draw
from waiting import BUDGETS, CACHE, PRUNING, WARM

ROOT = Path(__file__).parents[2]
SETS = {"dense": (), "cache": CACHE, "pruning": PRUNING}
LOOK_S = 0.02


@dataclass
class Watch:
    """When how many samples stood in each worker's journal."""

    folder: Path
    counts: dict[str, int] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    seen: list[tuple[float, dict[str, int]]] = field(default_factory=list)
    _read: dict[str, int] = field(default_factory=dict)

    def look(self) -> None:
        """Read what has been added since."""
        before = dict(self.counts)
        for path in self.folder.glob("journal-*.jsonl"):
            self._add(path)
        if self.counts != before:
            self.seen.append((time.perf_counter(), dict(self.counts)))

    def _add(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                file.seek(self._read.get(path.name, 0))
                new = file.read()
        except FileNotFoundError:  # taken away: the run is finished
            return
        whole = new[: new.rfind(b"\n") + 1]
        self._read[path.name] = self._read.get(path.name, 0) + len(whole)
        answered = sum("number" in json.loads(line) for line in whole.splitlines())
        if answered:
            self.counts[path.name] = self.counts.get(path.name, 0) + answered
            self.last[path.name] = time.perf_counter()

    def rate(self, workers: int) -> dict[str, Any]:
        """Samples a second once all `workers` are warm; ValueError where one never was."""
        warm = [number for number, (_, counts) in enumerate(self.seen) if _warm(counts, workers)]
        if not warm:
            raise ValueError(f"{workers} workers: not all answered {WARM} samples; they answered {self.counts}")
        (start, first), (end, total) = self.seen[warm[0]], self.seen[-1]
        samples = sum(total.values()) - sum(first.values())
        return {
            "samples": samples,
            "s": end - start,
            "samples_per_s": samples / (end - start),
            "first_done_before_last_s": max(self.last.values()) - min(self.last.values()),
            "by_worker": sorted(total.values()),
        }


def _warm(counts: Mapping[str, int], workers: int) -> bool:
    return len(counts) == workers and min(counts.values()) >= WARM


def watched(command: list[str], folder: Path, out: Path) -> Watch:
    """A run's journals as it writes them; RuntimeError with the end of its output where it fails."""
    watch = Watch(folder)
    with out.open("wb") as log, subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT) as run:
        while run.poll() is None:
            watch.look()
            time.sleep(LOOK_S)
        watch.look()
    if run.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {run.returncode}:\n{out.read_text()[-3000:]}")
    return watch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="random:llava_onevision_7b")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=16, help="new tokens of an answer at most")
    parser.add_argument("--workers", default="1,2", help="numbers of workers, one after the other")
    parser.add_argument("--cells", choices=SETS, default="dense", help="dense alone, or with methods at five budgets")
    asked = parser.parse_args()
    words = asked.workers.split(",")
    if not all(word.isdecimal() and int(word) for word in words):
        parser.error(f"--workers {asked.workers}: numbers of at least 1, such as 1,2,8")
    numbers = [int(word) for word in words]
    methods = ",".join(("dense", *SETS[asked.cells]))
    with tempfile.TemporaryDirectory() as place:
        pictures = Path(place, "drawn")
        pictures.mkdir()
        draw(pictures, asked.samples, asked.tokens)
        one = None
        for workers in numbers:
            folder = Path(place, f"run-{workers}")
            command = [sys.executable, "-m", "pytest", "bench_tests", "-q", "-k", "quality", "-n", str(workers)]
            command += ["--vlm-models", asked.model, "--vlm-tasks", f"drawn={pictures}", "--vlm-methods", methods]
            command += ["--vlm-budgets", ",".join(BUDGETS), "--vlm-limit", str(asked.samples), "--vlm-run", str(folder)]
            found = watched(command, folder, Path(place, f"log-{workers}")).rate(workers)
            one = one or found["samples_per_s"] / workers
            facts = {"model": asked.model, "cells": asked.cells, "workers": workers}
            print(json.dumps({**facts, **found, "over_one": found["samples_per_s"] / one}), flush=True)


if __name__ == "__main__":
    main()
