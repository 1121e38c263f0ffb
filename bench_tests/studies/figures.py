"""The figures of the README, measured: `python bench_tests/studies/figures.py` writes them to a file and to the README's table.

Not a test: what it measures depends on the machine, which stands in the file beside the numbers.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FILE = ROOT / "reports" / "baselines" / "figures.json"
README = ROOT / "README.md"
MARKS = ("<!-- figures: made by bench_tests/studies/figures.py -->", "<!-- /figures -->")
MODEL, TASK = "micro_llava_onevision", "docvqa_micro"
METHODS = ("random_kv", "streaming_llm", "h2o", "snapkv", "pyramidkv", "vl_cache")
BUDGETS = ("0.01", "0.05", "0.10", "0.20", "0.40")
MANY = [f"0.{number:04d}" for number in range(1, 81)]


def sweep(samples: int, rounds: int, device: str = "cpu") -> dict[str, Any]:
    """Seconds for dense and six cache methods at five budgets: shared, each cell alone (once, it takes long), and dense alone."""
    from effivlm.models._sources import resolve
    from effivlm.records import Cell, Settings
    from effivlm.run.group import open_model, run_group
    from effivlm.session.groups import on_device

    dense = Cell(MODEL, "dense", "paper", "1.00", TASK)
    cells = [dense, *(Cell(MODEL, method, "paper", keep, TASK) for method in METHODS for keep in BUDGETS)]
    where = on_device(Settings(limit=samples, device=device, dtype="auto"))
    model = open_model(resolve(MODEL), where)
    asked = {"shared": (cells, where), "alone": (cells, replace(where, share=False)), "dense": ([dense], where)}
    for group, settings in asked.values():
        run_group(group, model, replace(settings, limit=1))
    seconds: dict[str, list[float]] = {name: [] for name in asked}
    for number in range(rounds):  # in turn, so that a slow minute of the machine hits all alike
        for name, (group, settings) in asked.items():
            if number and name == "alone":
                continue
            seconds[name].append(_timed(lambda group=group, settings=settings: run_group(group, model, settings)))  # type: ignore[misc]
    median = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "device": where.device,
        "dtype": where.dtype,
        "cells": len(cells),
        "samples": samples,
        "rounds_s": seconds,
        "median_s": median,
        "alone_over_shared": median["alone"] / median["shared"],
        "shared_over_dense": median["shared"] / median["dense"],
    }


def collection(rounds: int) -> dict[str, Any]:
    """Seconds of a pytest process that collects over 5,000 cases, and how many it found."""
    command = [sys.executable, "-m", "pytest", "bench_tests", "--collect-only", "-q", f"--vlm-budgets={','.join(MANY)}"]
    seconds, found = [], 0
    for _ in range(rounds):
        start = time.perf_counter()
        shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        seconds.append(time.perf_counter() - start)
        found = int(re.search(r"(\d+) tests? collected", shown)[1])  # type: ignore[index]
    return {"cases": found, "rounds_s": seconds, "median_s": statistics.median(seconds)}


def selection(words: str, rounds: int) -> dict[str, Any]:
    """Seconds of `pytest bench_tests -k words` with default options, in an environment that is there."""
    command = [sys.executable, "-m", "pytest", "bench_tests", "-q", "-k", words]
    seconds = [
        _timed(lambda: subprocess.run(command, cwd=ROOT, capture_output=True, check=True)) for _ in range(rounds)
    ]
    return {"selected": words, "rounds_s": seconds, "median_s": statistics.median(seconds)}


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def machine() -> dict[str, Any]:
    import torch

    return {
        "date": time.strftime("%Y-%m-%d"),
        "cores": os.cpu_count(),
        "processor": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
    }


def table(figures: Mapping[str, Any]) -> str:
    """The README's table, as Markdown."""
    swept, found, chosen, host = (figures[name] for name in ("sweep", "collection", "selection", "machine"))
    times = swept["median_s"]
    rows = [
        ("what", "measured"),
        ("---", "---"),
        (f"{swept['cells']} cells x {swept['samples']} samples, shared", f"{times['shared']:.1f} s"),
        (
            "the same cells, each alone",
            f"{times['alone']:.1f} s, **{swept['alone_over_shared']:.1f} times** the shared run",
        ),
        (
            "dense alone",
            f"{times['dense']:.1f} s; the whole sweep costs {swept['shared_over_dense']:.1f} times as much",
        ),
        (f"collecting {found['cases']:,} cases", f"{found['median_s']:.2f} s"),
        (f'`pytest bench_tests -k "{chosen["selected"]}"`', f"{chosen['median_s']:.0f} s"),
    ]
    lines = [f"| {left} | {right} |" for left, right in rows]
    note = f"Medians on {host['cores']} cores ({host['processor']}), torch {host['torch']}, {host['date']}."
    return "\n".join([*lines, "", note])


def written(readme: str, figures: Mapping[str, Any]) -> str:
    """The README with the table between its marks; ValueError where the marks are missing."""
    before, mark, rest = readme.partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    if not mark or not end:
        raise ValueError(f"README.md has no place for the figures: {MARKS[0]} ... {MARKS[1]}")
    return f"{before}{MARKS[0]}\n{table(figures)}\n{MARKS[1]}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sweep", metavar="FILE", type=Path, help="measure the sweep alone, into this file")
    parser.add_argument("--device", default="cpu", help="of the sweep: cpu, cuda or cuda:N")
    asked = parser.parse_args()
    if asked.sweep:
        if not asked.sweep.parent.is_dir():
            parser.error(f"--sweep: {asked.sweep.parent} is no folder")
        swept = {"machine": machine(), "sweep": sweep(asked.samples, asked.rounds, asked.device)}
        asked.sweep.write_text(json.dumps(swept, indent=1) + "\n", encoding="utf-8")
        print(json.dumps(swept["sweep"], indent=1))
        return
    if asked.device != "cpu":
        parser.error("--device goes with --sweep: the README's figures are those of a CPU")
    figures = {
        "machine": machine(),
        "sweep": sweep(asked.samples, asked.rounds),
        "collection": collection(asked.rounds),
        "selection": selection("fastv and docvqa", 1),
    }
    FILE.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    README.write_text(written(README.read_text(encoding="utf-8"), figures), encoding="utf-8")
    print(table(figures))


if __name__ == "__main__":
    main()
