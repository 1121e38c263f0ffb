"""`python -m effivlm compare`: is one run worse than another? Lines, JSON, a page, an exit code."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from effivlm.commands import RUN
from effivlm.report.baseline import load
from effivlm.report.differences import lines, page
from effivlm.report.limits import GROUPS, POLICIES, Limits, tolerances
from effivlm.report.verdict import verdict

EXIT_CODES = {"passed": 0, "failed": 1, "refused": 2}


def add(command: Callable[..., Any]) -> None:
    parser = command(
        "compare",
        "is run B worse than A beyond what is allowed?",
        run,
        f"reports/baselines/cpu_micro.json {RUN} --html differences.html",
    )
    defaults = ", ".join(f"{name} {group.default:g}" for name, group in GROUPS.items())
    parser.description = "Exit code 0: nothing got worse, 1: something did, 2: not everything could be compared."
    parser.add_argument("before", metavar="A", type=Path, help="run folder, report.json or baseline")
    parser.add_argument("after", metavar="B", type=Path, help="what is judged; as A")
    parser.add_argument("--json", action="store_true", help="print the verdict as JSON")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page of differences")
    parser.add_argument(
        "--tolerance",
        default="",
        metavar="TABLE",
        help=f"e.g. score=0.02,docvqa_micro.score=0.03 (default: {defaults})",
    )
    for name, default, text in (
        ("missing", "fail", "measurements that only A has"),
        ("new", "warn", "measurements that only B has"),
        ("inconclusive", "warn", "what looks worse, with too few samples or rounds to tell"),
        ("device-change", "warn", "another device, so that timings are not compared"),
    ):
        parser.add_argument(f"--{name}", choices=POLICIES, default=default, help=f"{text} (default: {default})")


def run(options: argparse.Namespace) -> int:
    policies = (options.missing, options.new, options.device_change, options.inconclusive)
    limits = Limits(tolerances(options.tolerance), *policies)
    before, after = load(options.before), load(options.after)
    limits.check_names(before.names | after.names)
    found = verdict(before, after, limits)
    if options.html:
        options.html.parent.mkdir(parents=True, exist_ok=True)
        options.html.write_text(page(found), encoding="utf-8", errors="replace")
    print(json.dumps(found, allow_nan=False) if options.json else "\n".join(lines(found)))
    return EXIT_CODES[found["status"]]
