"""Collecting costs next to nothing: thousands of cases, and no import of what only a run needs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from toy_session import ROOT

HEAVY = ("torch", "transformers", "torchvision", "datasets", "PIL")
GENEROUS_S = (
    20.0  # the figure to reach is 2; a shared machine is slow at times, an import of torch alone is more than that
)

CHECK = """
import json, sys

def pytest_collection_finish(session):
    names = [name for name in {heavy!r} if name in sys.modules]
    with open("collected.json", "w") as file:
        json.dump({{"cases": len(session.items), "heavy": names}}, file)
"""


def collect(folder: Path, *arguments: str) -> tuple[dict[str, object], float]:
    """Collect `bench_tests` over the real registry in a process of its own; what it found, and its seconds."""
    checkpoint = folder / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "config.json").write_text(json.dumps({"model_type": "llava_onevision"}))
    (checkpoint / "model.safetensors").write_bytes(b"")
    (folder / "watch.py").write_text(CHECK.format(heavy=HEAVY))
    command = [sys.executable, "-m", "pytest", "-p", "watch", "-p", "no:cacheprovider", "--collect-only", "-qq"]
    places = [str(ROOT / "bench_tests"), f"--rootdir={ROOT}", f"--vlm-models={checkpoint}"]
    began = time.perf_counter()
    result = subprocess.run(
        [*command, *places, *arguments],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{folder}:{ROOT}", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - began
    assert result.returncode == 0, result.stdout + result.stderr
    return json.loads((folder / "collected.json").read_text()), seconds


def test_five_thousand_cases_are_collected_without_anything_heavy(tmp_path: Path) -> None:
    budgets = ",".join(f"{number / 1000:.3f}" for number in range(1, 281))
    found, seconds = collect(tmp_path, f"--vlm-budgets={budgets}", "--vlm-tasks=docvqa_micro")
    assert int(str(found["cases"])) >= 5000
    assert found["heavy"] == []
    print(f"{found['cases']} cases in {seconds:.2f} s")
    assert seconds < GENEROUS_S


def test_what_a_session_loads_to_collect_brings_no_scorer() -> None:
    code = (
        "import sys, effivlm.plugin.bench, effivlm.plugin.controller, effivlm.session.resume;"
        "print([name for name in ('numpy', 'scipy', 'rapidfuzz', 'PIL', 'torch', 'datasets') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
