"""`python -m effivlm report`: the report of a run again, or of several runs as one."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from effivlm.commands import RUN
from effivlm.report.export import FORMATS, export
from effivlm.report.merge import merge
from effivlm.report.terminal import table
from effivlm.report.write import OUTCOMES, write
from effivlm.session.joining import join


def add(command: Callable[..., Any]) -> None:
    parser = command(
        "report",
        "write report.json and report.html of a run again, or of several runs as one, and print its table",
        run,
        RUN,
        "shard_1 shard_2 --out reports/both --tables csv,md,latex",
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help=f"a folder that holds {OUTCOMES}")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="new folder for several runs merged into one")
    parser.add_argument("--tables", default="", metavar="FORMATS", help=f"also write tables: {','.join(FORMATS)}")


def run(options: argparse.Namespace) -> int:
    folders, formats = options.folders, [word.strip() for word in options.tables.split(",") if word.strip()]
    for name in formats:
        if name not in FORMATS:
            raise ValueError(f"--tables: {name!r} is not one of {', '.join(FORMATS)}")
    for folder in folders:
        if not (folder / OUTCOMES).is_file():
            raise ValueError(f"{folder} holds no {OUTCOMES}: name the folder of one run, e.g. {RUN}")
    if len(folders) > 1 and options.out is None:
        raise ValueError(f"{len(folders)} runs are merged into a new folder: name it with --out FOLDER")
    folder = options.out or folders[0]
    if options.out is not None:
        merge(folders, options.out, join)
    document = write(folder)
    print(table(document), end="")
    if formats:
        print(f"tables: {export(document, folder / 'tables', formats)[0].parent}")
    print(f"report: {folder / 'report.html'}")
    return 0
