"""`python -m effivlm certify`: is a method not worse than dense by more than a margin? A sentence, JSON, an exit code."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from effivlm.commands import RUN
from effivlm.records import Budget
from effivlm.report.baseline import load
from effivlm.report.certificate import CERTIFIED, Claim, certify
from effivlm.run.steps import asked


def add(command: Callable[..., Any]) -> None:
    parser = command(
        "certify",
        "is a method not worse than dense by more than a margin? Exit code 0: certified, 1: not, 2: cannot be said",
        run,
        f"{RUN} --method snapkv --keep 0.2 --margin 0.01",
        f"{RUN} --method fastv@effivlm --keep 0.4 --margin 0.02 --every --json",
    )
    parser.add_argument("folder", type=Path, metavar="RUN", help="run folder")
    parser.add_argument(
        "--method", required=True, metavar="METHOD", help="as --vlm-methods has it: METHOD or METHOD@PRESET"
    )
    parser.add_argument("--keep", required=True, metavar="BUDGET", help="as --vlm-budgets has it")
    parser.add_argument(
        "--margin", required=True, type=float, metavar="X", help="of the score on [0, 1] that may be lost"
    )
    parser.add_argument(
        "--level", default=0.95, type=float, metavar="X", help="one-sided confidence (default: %(default)s)"
    )
    parser.add_argument("--model", default="", metavar="NAME", help="one model of the run (default: all)")
    parser.add_argument("--every", action="store_true", help="each task by itself, not only the mean over tasks")
    parser.add_argument("--json", action="store_true", help="print the certificate as JSON")


def run(options: argparse.Namespace) -> int:
    method, preset = asked(options.method)
    claim = Claim(
        method, preset, Budget.parse(options.keep), options.margin, options.level, options.model, options.every
    )
    found = certify(load(options.folder), claim)
    if options.json:
        print(json.dumps(found, allow_nan=False))
    else:
        for task in found["tasks"]:
            reach = task["reason"] or f"{task['drop']:+.4f} lost, at most {task['upper']:.4f}"
            print(f"{task['model']} {task['task']}: {task['status']}: {reach} (n {task['n']}, {task['groups']} groups)")
        print(f"{found['status']}: {found['sentence']}")
    return 0 if found["status"] == CERTIFIED else 1
