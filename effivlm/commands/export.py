"""`python -m effivlm export`: answers of a run as the servers take them that alone can score them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from effivlm import registry
from effivlm.commands import RUN
from effivlm.records import Outcome
from effivlm.report.document import read
from effivlm.report.write import OUTCOMES
from effivlm.tasks._opened import task_of


def add(command: Callable[..., Any]) -> None:
    parser = command(
        "export",
        "write answers that a server scores (DocVQA's test split), a file a cell, as it takes them",
        run,
        f"{RUN} --out submissions",
    )
    parser.add_argument("folder", type=Path, metavar="RUN", help=f"a folder that holds {OUTCOMES}")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where files go (default: RUN/export)")


def run(options: argparse.Namespace) -> int:
    folder, out = options.folder, options.out or options.folder / "export"
    if not (folder / OUTCOMES).is_file():
        raise ValueError(f"{folder} holds no {OUTCOMES}: name the folder of one run")
    _, outcomes, _ = read(folder / OUTCOMES)
    latest = {one.cell: one for one in outcomes if one.part == "quality" and one.answers}
    written = [path for one in latest.values() if (path := _written(one, out))]
    if not written:
        waiting = ", ".join(name for name in registry.names("tasks") if registry.inherited("tasks", name, "elsewhere"))
        raise ValueError(f"{folder} holds no answers of a task that a server scores ({waiting})")
    for path in written:
        print(path)
    return 0


def _written(outcome: Outcome, out: Path) -> Path | None:
    """The file of a cell's answers; None where its task is scored here.

    Raises:
        ValueError: some samples broke, and a server counts those that are missing as wrong.
    """
    name = outcome.cell.task
    if name not in registry.names("tasks") or not registry.inherited("tasks", name, "elsewhere"):
        return None
    broken = [one.id for one in outcome.answers if one.error]
    if broken:
        raise ValueError(
            f"{outcome.cell.id}: {len(broken)} of its samples broke, the first is {broken[0]}: resume the run first"
        )
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{outcome.cell.id}.json"
    path.write_text(
        json.dumps(task_of(name).exported(outcome.answers), ensure_ascii=False), encoding="utf-8", errors="replace"
    )
    return path
