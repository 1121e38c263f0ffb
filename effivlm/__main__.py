"""`python -m effivlm`: make a run's report again, list what there is, look whether this machine can run."""

from __future__ import annotations

import argparse
import ast
import importlib.util
import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from effivlm import registry
from effivlm._recorder import devices
from effivlm.report.terminal import table
from effivlm.report.write import OUTCOMES, write

NECESSARY = ("torch", "transformers", "pytest", "numpy", "pillow", "rapidfuzz")
USEFUL = ("pytest-benchmark", "pytest-xdist", "tokenizers", "safetensors", "datasets")
MICRO = "effivlm_micro"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 failed, 2 wrong usage (raised by argparse as SystemExit)."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "report":
            return _report(options.run_folder)
        if options.command == "list":
            return _list([options.kind] if options.kind else list(registry.KINDS))
        return _doctor(options.reports)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader (head, less) left; nothing is wrong
        return 0
    except (OSError, ValueError) as error:
        print(f"effivlm {options.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m effivlm",
        description=__doc__,
        formatter_class=raw,
        epilog="example: python -m effivlm list methods",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    report = commands.add_parser(
        "report",
        help="write report.json and report.html of a run again, and print its table",
        formatter_class=raw,
        epilog="example: python -m effivlm report reports/2026-01-31T12-00-00",
    )
    report.add_argument("run_folder", type=Path, help=f"the folder that holds {OUTCOMES}")
    listing = commands.add_parser(
        "list", help="names that can be selected", formatter_class=raw, epilog="example: python -m effivlm list tasks"
    )
    listing.add_argument("kind", nargs="?", choices=registry.KINDS, help="one kind only; all without it")
    doctor = commands.add_parser(
        "doctor",
        help="look whether this machine can run the suite",
        formatter_class=raw,
        epilog="example: python -m effivlm doctor --reports reports",
    )
    doctor.add_argument(
        "--reports", type=Path, default=Path("reports"), help="the folder for reports (default: reports)"
    )
    return parser


def _report(folder: Path) -> int:
    if not (folder / OUTCOMES).is_file():
        raise ValueError(f"{folder} holds no {OUTCOMES}: name the folder of one run, e.g. reports/2026-01-31T12-00-00")
    print(table(write(folder)), end="")
    print(f"report: {folder / 'report.html'}")
    return 0


def _list(kinds: Sequence[str]) -> int:
    for kind in kinds:
        names = registry.names(kind)
        print(f"{kind} ({len(names)})")
        wide = max(map(len, names), default=0)
        for name in names:
            facts = registry.declared(kind, name)
            lists = ((word, facts.get(word)) for word in ("presets", "checkpoints"))
            known = "".join(f"  [{word}: {', '.join(map(str, of))}]" for word, of in lists if of)
            print(f"  {name.ljust(wide)}  {_first_line(kind, name)}{known}".rstrip())
    return 0


def _first_line(kind: str, name: str) -> str:
    """First line of the class's docstring, or else of its module's, read without running the file."""
    entry = registry.entries(kind)[name]
    spec = importlib.util.find_spec(entry.module)
    if spec is None or spec.origin is None:
        return ""
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    chosen = [node for node in classes if node.name == entry.attribute] or classes
    text = (ast.get_docstring(chosen[0]) if chosen else None) or ast.get_docstring(tree) or ""
    return text.split("\n")[0]


def _doctor(reports: Path) -> int:
    missing = []
    print(f"{'python':18}{platform.python_version()}  {platform.platform()}")
    for name in (*NECESSARY, *USEFUL):
        found = _version(name)
        print(f"{name:18}{found or ('MISSING' if name in NECESSARY else 'not installed (optional)')}")
        if found is None and name in NECESSARY:
            missing.append(name)
    print(f"{'cores':18}{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()}")
    machine = devices()
    for gpu in machine["gpus"] or [{"name": machine["processor"], "driver": "no GPU"}]:
        print(f"{'device':18}{', '.join(map(str, gpu.values()))}")
    micro = importlib.util.find_spec(MICRO) is not None
    print(f"{'micro models':18}{'found' if micro else f'MISSING: no module {MICRO}, so the default run has no model'}")
    writable = _writable(reports)
    print(f"{'reports folder':18}{reports} {'is writable' if writable else 'CANNOT BE WRITTEN'}")
    missing += ([] if micro else ["micro models"]) + ([] if writable else ["a writable reports folder"])
    print(f"missing: {', '.join(missing)}" if missing else "all that is necessary is here")
    return 1 if missing else 0


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _writable(folder: Path) -> bool:
    nearest = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return nearest.is_dir() and os.access(nearest, os.W_OK)


if __name__ == "__main__":
    sys.exit(main())
