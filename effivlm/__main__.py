"""`python -m effivlm`: reports of runs, one or several; a verdict on two of them; what there is; whether this machine runs;
native checkpoints of others."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from effivlm import registry
from effivlm.commands import certify, compress, fetch, rescore, run
from effivlm.commands import export as handing_in
from effivlm.models._sources import RANDOM, shapes
from effivlm.report.baseline import load
from effivlm.report.differences import lines, page
from effivlm.report.export import FORMATS, export
from effivlm.report.limits import GROUPS, POLICIES, Limits, tolerances
from effivlm.report.merge import merge
from effivlm.report.terminal import table
from effivlm.report.verdict import verdict
from effivlm.report.write import OUTCOMES, write
from effivlm.session.joining import join
from effivlm.session.places import trial
from effivlm.session.recorder import devices
from effivlm.weights import libraries

NECESSARY = ("torch", "transformers", "pytest", "numpy", "scipy", "pillow", "rapidfuzz")
USEFUL = ("pytest-benchmark", "pytest-xdist", "tokenizers", "safetensors", "datasets", "av")
MICRO = "effivlm_micro"
EXIT_CODES = {"passed": 0, "failed": 1, "refused": 2}
RUN_EXAMPLE = "reports/2026-01-31T12-00-00"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns the exit code: 0 done, 1 failed or got worse, 2 not comparable or wrong usage (argparse raises SystemExit).
    """
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader (head, less) left; nothing is wrong
        return 0
    except (OSError, ValueError) as error:
        print(f"effivlm {options.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2 if options.command == "compare" else 1
    return code


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m effivlm",
        description=__doc__,
        formatter_class=raw,
        epilog="example: python -m effivlm list methods",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    def command(name: str, text: str, run: Callable[[argparse.Namespace], int], *examples: str) -> Any:
        shown = "\n".join(f"example: python -m effivlm {name} {example}" for example in examples)
        added = commands.add_parser(name, help=text, description=text, formatter_class=raw, epilog=shown)
        added.set_defaults(run=run)
        return added

    report = command(
        "report",
        "write report.json and report.html of a run again, or of several runs as one, and print its table",
        _report,
        RUN_EXAMPLE,
        "shard_1 shard_2 --out reports/both --tables csv,md,latex",
    )
    report.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help=f"a folder that holds {OUTCOMES}")
    report.add_argument("--out", type=Path, metavar="FOLDER", help="new folder for several runs merged into one")
    report.add_argument("--tables", default="", metavar="FORMATS", help=f"also write tables: {','.join(FORMATS)}")
    compared = command("compare", "is run B worse than A beyond what is allowed?", _compare, COMPARE_EXAMPLE)
    _compare_arguments(compared)
    listing = command("list", "names that can be selected", _list, "tasks")
    listing.add_argument("kind", nargs="?", choices=registry.KINDS, help="one kind only; all without it")
    doctor = command("doctor", "look whether this machine can run the suite", _doctor, "--reports reports")
    doctor.add_argument(
        "--reports", type=Path, default=Path("reports"), help="the folder for reports (default: reports)"
    )
    converted = command(
        "convert",
        "make a native checkpoint of a repository in its authors' own format",
        _convert,
        "OpenGVLab/InternVL2_5-38B internvl2_5_38b",
    )
    converted.add_argument(
        "source", metavar="SRC", help="folder of a downloaded repository, or its hub id, which is fetched"
    )
    converted.add_argument("target", type=Path, metavar="DST", help="new folder, for --vlm-models NAME=DST")
    converted.add_argument(
        "--tokenizer", default="", metavar="FROM", help="take the tokenizer of this folder or hub id"
    )
    for module in (certify, compress, fetch, rescore, run, handing_in):
        module.add(command)
    return parser


COMPARE_EXAMPLE = f"reports/baselines/cpu_micro.json {RUN_EXAMPLE} --html differences.html"


def _compare_arguments(parser: argparse.ArgumentParser) -> None:
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


def _report(options: argparse.Namespace) -> int:
    folders, formats = options.folders, [word.strip() for word in options.tables.split(",") if word.strip()]
    for name in formats:
        if name not in FORMATS:
            raise ValueError(f"--tables: {name!r} is not one of {', '.join(FORMATS)}")
    for folder in folders:
        if not (folder / OUTCOMES).is_file():
            raise ValueError(f"{folder} holds no {OUTCOMES}: name the folder of one run, e.g. {RUN_EXAMPLE}")
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


def _compare(options: argparse.Namespace) -> int:
    policies = (options.missing, options.new, options.device_change, options.inconclusive)
    limits = Limits(tolerances(options.tolerance), *policies)
    before, after = load(options.before), load(options.after)
    limits.check_names(before.names | after.names)
    found = verdict(before, after, limits)
    if options.html:
        options.html.write_text(page(found), encoding="utf-8", errors="replace")
    print(json.dumps(found, allow_nan=False) if options.json else "\n".join(lines(found)))
    return EXIT_CODES[found["status"]]


def _convert(options: argparse.Namespace) -> int:
    from effivlm.models._convert import convert, folder_of

    if options.target.exists():
        raise ValueError(f"{options.target} exists already: name a new folder")
    tokenizer = folder_of(options.tokenizer) if options.tokenizer else None
    convert(folder_of(options.source), options.target, tokenizer)
    return 0


def _list(options: argparse.Namespace) -> int:
    for kind in [options.kind] if options.kind else registry.KINDS:
        names = registry.names(kind)
        print(f"{kind} ({len(names)})")
        wide = max(map(len, names), default=0)
        broken = registry.unusable(kind)
        for name in names:
            print(f"  {name.ljust(wide)}  {broken[name] if name in broken else _described(kind, name)}".rstrip())
        for name in registry.open_methods() if kind == "methods" else ():
            print(f"  {name}{registry.OPEN}NAME  {registry.documented(kind, name + registry.OPEN)}")
        if kind == "models":
            print(f"  real shapes with random weights: {', '.join(RANDOM + name for name in shapes())}")
    return 0


def _described(kind: str, name: str) -> str:
    facts = registry.declared(kind, name)
    lists = ((word, facts.get(word)) for word in ("presets", "checkpoints"))
    return registry.documented(kind, name) + "".join(
        f"  [{word}: {', '.join(map(str, of))}]" for word, of in lists if of
    )


def _doctor(options: argparse.Namespace) -> int:
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
        print(f"{'cases':18}{' '.join(run.cases())}")
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


if __name__ == "__main__":
    sys.exit(main())
