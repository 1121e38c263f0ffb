"""`python -m effivlm doctor`: whether this machine can run the suite; what is missing, by name."""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from effivlm.commands.run import cases
from effivlm.session.places import trial
from effivlm.session.recorder import devices
from effivlm.weights import libraries

NECESSARY = ("torch", "transformers", "pytest", "numpy", "scipy", "pillow", "rapidfuzz")
USEFUL = ("pytest-benchmark", "pytest-xdist", "tokenizers", "safetensors", "datasets", "av")
MICRO = "effivlm_micro"


def add(command: Callable[..., Any]) -> None:
    parser = command("doctor", "look whether this machine can run the suite", run, "--reports reports")
    parser.add_argument(
        "--reports", type=Path, default=Path("reports"), help="the folder for reports (default: reports)"
    )


def run(options: argparse.Namespace) -> int:
    missing, reports = [], options.reports
    print(f"{'python':18}{platform.python_version()}  {platform.platform()}")
    for name in (*NECESSARY, *USEFUL):
        found = _version(name)
        print(f"{name:18}{found or ('MISSING' if name in NECESSARY else 'not installed (optional)')}")
        if found is None and name in NECESSARY:
            missing.append(name)
    for name in libraries.LIBRARIES:
        why = libraries.missing(name)
        print(f"{name:18}{f'{why} (optional)' if why else libraries.installed(name)}")
    print(f"{'cores':18}{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()}")
    machine = devices()
    for gpu in machine["gpus"] or [{"name": machine["processor"], "driver": "no GPU"}]:
        print(f"{'device':18}{', '.join(map(str, gpu.values()))}")
    micro = importlib.util.find_spec(MICRO) is not None
    print(f"{'micro models':18}{'found' if micro else f'MISSING: no module {MICRO}, so the default run has no model'}")
    try:
        print(f"{'cases':18}{' '.join(cases())}")
    except ValueError as error:
        print(f"{'cases':18}MISSING: {error}")
        missing.append("cases")
    why = _unwritable(reports)
    print(
        f"{'reports folder':18}{reports} {f'CANNOT BE WRITTEN: {why}' if why else 'is writable (a file was written)'}"
    )
    missing += ([] if micro else ["micro models"]) + (["a writable reports folder"] if why else [])
    print(f"missing: {', '.join(missing)}" if missing else "all that is necessary is here")
    return 1 if missing else 0


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _unwritable(folder: Path) -> str:
    """Why nothing can be written into `folder`, which need not be there; "" where a file could be, as it was tried."""
    if folder.exists() and not folder.is_dir():
        return "it is no folder"
    try:
        trial(folder / f".doctor-{os.getpid()}")
    except OSError as error:
        return error.strerror or str(error)
    return ""
