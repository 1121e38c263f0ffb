"""`python -m effivlm run`: one command for a whole suite, and what it will cost before it starts."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import effivlm
from effivlm.budget import TOKEN_KINDS
from effivlm.commands.fetch import sources_of
from effivlm.data.fetch import bill, size_of
from effivlm.data.places import STREAM, data_home
from effivlm.data.rows import place_of
from effivlm.models._sources import RANDOM, shape, shapes
from effivlm.plugin.summary import estimate, span
from effivlm.records import Cell
from effivlm.run.steps import weights_step
from effivlm.session import matrix
from effivlm.session.judges import NONE, rubric_named
from effivlm.session.matrix import Asked, Plan
from effivlm.session.recorder import devices
from effivlm.spelling import apart
from effivlm.suites import expanded, suites

LISTS = ("models", "methods", "budgets", "tasks")
ALL = "1000000000"
CASES = "test_quality.py"
LONG_PROMPT = 10_000  # tokens: a page in LLaVA-OneVision's tiles, or 32 frames


def add(command: Callable[..., Any]) -> None:
    words = sorted({word for kind in ("tasks", "models", "methods") for word in suites(kind)})
    parser = command(
        "run",
        "run a suite: its tasks on its models with its methods; what stands behind -- goes to pytest",
        run,
        "--suite paper --dry-run",
        "--tasks docvqa,gqa --dry-run --measure",
        "--suite reviewers --models random:qwen2_vl_7b --limit 100 -- -x",
        "--suite paper --on ray://10.0.0.1:6379",
    )
    parser.add_argument("--suite", choices=words, help="tasks, models and methods of this suite, where it has them")
    for name in LISTS:
        parser.add_argument(f"--{name}", default="", metavar="A,B", help=f"as --vlm-{name}; goes before the suite's")
    parser.add_argument("--limit", default="", metavar="N", help="samples a cell (default: all)")
    parser.add_argument("--data", default="", metavar="DIR", help="as --vlm-data")
    parser.add_argument("--judge", default="", metavar="SPEC", help="as --vlm-judge, for tasks that a judge scores")
    parser.add_argument("--out", default="", metavar="FOLDER", help="new folder of this run")
    parser.add_argument(
        "--on", default="", metavar="ENGINE", help="on a cluster: ray (a local one, or RAY_ADDRESS) or ray://ADDRESS"
    )
    parser.add_argument("--timings", action="store_true", help="time every case too")
    parser.add_argument("--dry-run", action="store_true", help="only say what would run, be downloaded, and fit")
    parser.add_argument(
        "--measure",
        action="store_true",
        help="with --dry-run: ask a few samples of what is here, and foresee the time by them",
    )
    parser.add_argument("rest", nargs="*", metavar="-- PYTEST", help="further arguments of pytest")


def run(options: argparse.Namespace) -> int:
    asked = {name: _words(options, name) for name in LISTS}
    if not asked["tasks"]:
        raise ValueError("name what to run: --suite paper, or --tasks docvqa,gqa")
    if options.measure and not options.dry_run:
        raise ValueError("--measure asks samples for --dry-run: give both, or neither")
    if options.dry_run:
        for line in _foreseen(asked, options):
            print(line)
        return 0
    if options.on:
        return _on_cluster(asked, options)
    return subprocess.call(_command(asked, options))


def _on_cluster(asked: dict[str, tuple[str, ...]], options: argparse.Namespace) -> int:
    from effivlm.commands import clustered

    if options.timings:
        raise ValueError("--timings: a case is timed alone on its device, by a run without --on")
    return clustered.run(options.on, [*_selected(asked, options), *options.rest])


def _words(options: argparse.Namespace, name: str) -> tuple[str, ...]:
    given = tuple(word.strip() for word in apart(getattr(options, name), ",") if word.strip())
    if given or name == "budgets" or not options.suite:
        return given
    return (options.suite,) if options.suite in suites(name) else ()


def cases() -> list[str]:
    """Arguments that name the cases to pytest: those of a checkout, else those that came with the installed package.

    Raises:
        ValueError: neither is there.
    """
    package = Path(effivlm.__file__).parent
    checkout, installed = package.parent / "bench_tests", package / "bench"
    if (installed / CASES).is_file():
        return ["--pyargs", "effivlm.bench"]
    if (checkout / CASES).is_file():
        return [str(checkout), f"--rootdir={checkout.parent}"]
    raise ValueError(f"the cases are missing: neither {installed} nor {checkout} holds {CASES}; install effivlm again")


def _command(asked: dict[str, tuple[str, ...]], options: argparse.Namespace) -> list[str]:
    command = [sys.executable, "-m", "pytest", *cases()]
    command += [] if options.timings else ["-k", "quality"]
    return [*command, *_selected(asked, options), *options.rest]


def _selected(asked: dict[str, tuple[str, ...]], options: argparse.Namespace) -> list[str]:
    """The plugin's options of a suite."""
    words = {"limit": options.limit or ALL, "data": options.data, "judge": options.judge, "run": options.out}
    return [
        *(f"--vlm-{name}={','.join(given)}" for name, given in asked.items() if given),
        *(f"--vlm-{name}={value}" for name, value in words.items() if value),
    ]


def _foreseen(asked: dict[str, tuple[str, ...]], options: argparse.Namespace) -> Iterator[str]:
    """What a run means, a line each: cases, downloads, memory, time, and the command."""
    models = expanded("models", asked["models"]) or (matrix.DEFAULT_MODEL,)
    plan, missing = _planned(asked, models, options)
    tasks = expanded("tasks", asked["tasks"])
    each = len({(cell.method, cell.preset, cell.keep) for cell in plan.cells})
    cells = each * len(tasks) * len(models)
    parts = 3 if options.timings else 1
    yield f"cells: {cells} ({len(models)} models x {len(tasks)} tasks x {each} methods and budgets), {cells * parts} cases"
    for name, reason in missing.items():
        yield f"model {name}: {reason}"
    if judged := [name for name in tasks if "=" not in name and rubric_named(name, plan.settings)]:
        judge = options.judge or "missing; give --judge SPEC, or --judge none to store the answers for rescore"
        yield f"judge of {', '.join(judged)}: {judge}"
    yield from _downloads(tasks, options)
    yield from _memory(models, plan)
    if made := _made(plan):
        yield f"checkpoints: {', '.join(made)} of each model are made once for all tasks, which the time below leaves out"
    yield from _measured(plan, tasks, options) if options.measure else _estimated(plan)
    yield f"command: {shlex.join(_command(asked, options))}"


def _made(plan: Plan) -> list[str]:
    """The checkpoints that methods make, as METHOD BUDGET."""
    steps = (weights_step(cell.method, cell.preset, cell.keep) for cell in plan.cells)
    return list(dict.fromkeys(f"{replace(step, keep='').text} {step.keep}" for step in steps if step))


def _estimated(plan: Plan) -> Iterator[str]:
    """The time of each task, by an earlier run."""
    for name in dict.fromkeys(cell.task for cell in plan.cells):
        planned = [(cell, "quality") for cell in plan.cells if cell.task == name]
        limit = _limit(name, plan)
        yield f"time {name}: {estimate(planned, limit, Path('reports'))}, {limit} samples a cell"
    yield "--measure asks a few samples here, and the time is foreseen by them"


def _measured(plan: Plan, tasks: Sequence[str], options: argparse.Namespace) -> Iterator[str]:
    """The time of each (model, task), by samples that are asked now, and of all that could be measured."""
    from effivlm.session.measure import measure

    root = Path(options.data).expanduser() if options.data not in ("", STREAM) else data_home()
    absent = {
        name: "its set is not here"
        for name in tasks
        if "=" not in name and (sources := sources_of(name)) and not place_of(name, sources[0], root)
    }
    total, unknown = 0.0, 0
    for one in measure(plan, absent):
        head = f"time {one.model} {one.task}"
        if one.reason:
            unknown += 1
            yield f"{head}: not measured, {one.reason}"
            continue
        limit = _limit(one.task, plan)
        total += one.seconds(limit)
        shared = f"{one.sample_s:.3g} s a sample under {one.cells} cells, {one.dense_s:.3g} s under dense alone"
        yield f"{head}: about {span(one.seconds(limit))}, {limit} samples (measured now: {shared})"
    yield f"time together: about {span(total)}{f', and what {unknown} groups take that were not measured' * bool(unknown)}"


def _limit(name: str, plan: Plan) -> int:
    return min(plan.settings.limit, _rows(name, plan) or 1000)


def _planned(
    asked: dict[str, tuple[str, ...]], models: Sequence[str], options: argparse.Namespace
) -> tuple[Plan, dict[str, str]]:
    """The matrix over those models that are here, and why the others are not."""
    missing: dict[str, str] = {}
    here = []
    for name in models:
        try:
            matrix.build(Asked(models=(name,), methods=("dense",)))
            here.append(name)
        except ValueError as error:
            missing[name] = str(error)
    rest: dict[str, Any] = {name: words for name, words in asked.items() if name != "models"}
    given = Asked(
        models=tuple(here) or (matrix.DEFAULT_MODEL,),
        limit=options.limit or ALL,
        data=options.data,
        judge=options.judge or NONE,
        **rest,
    )
    return matrix.build(given), missing


def _rows(name: str, plan: Plan) -> int:
    """How many rows the set of a task has, 0 where that is not known."""
    sources = () if name in plan.settings.folders else sources_of(name)
    return sources[0].rows if sources else 0


def _downloads(tasks: Sequence[str], options: argparse.Namespace) -> Iterator[str]:
    """What of each task's set is not here, and how large it is."""
    root = Path(options.data).expanduser() if options.data not in ("", STREAM) else data_home()
    unreachable = ""
    for name in (name for name in tasks if "=" not in name):
        sources = sources_of(name)
        if not sources:
            continue
        if place := place_of(name, sources[0], root):
            yield f"set {name}: here ({place})"
            continue
        size = f"{sources[0].gigabytes:g} GB" if sources[0].gigabytes else "a size that the hub alone can tell"
        if not unreachable:
            try:
                size = size_of(bill(name, sources, root).missing)
            except ValueError as error:
                unreachable = str(error)
        yield f"set {name}: {size} to download"
    if unreachable:
        yield f"sizes are those declared, because {unreachable}"


def _cached(cell: Cell) -> float:
    """The share of a long prompt's cache that a cell leaves; a budget of weights alone leaves all."""
    counted = cell.budget.kind in TOKEN_KINDS
    return float(cell.budget.exact(LONG_PROMPT)) / LONG_PROMPT if counted else 1.0


def _memory(models: Sequence[str], plan: Plan) -> Iterator[str]:
    """GPU memory that weights and the dense and compressed caches of one long prompt need, and what is here."""
    shares = {(cell.method, cell.preset, cell.keep): _cached(cell) for cell in plan.cells}
    for name in models:
        known = name.removeprefix(RANDOM)
        if known not in shapes():
            continue
        facts = shape(known)
        weights = 2 * int(facts["parameters"])
        caches = int(facts["kv_bytes_per_token"]) * LONG_PROMPT * sum(shares.values())
        yield (
            f"memory {name}: {size_of(weights)} of weights and about {size_of(int(caches))} of caches for a prompt of"
            f" {LONG_PROMPT} tokens under all cells at once (bfloat16)"
        )
    found = [f"{gpu['name']} with {gpu['memory']}" for gpu in devices()["gpus"]]
    yield f"memory here: {', '.join(found) or 'no GPU'}"
