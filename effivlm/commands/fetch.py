"""`python -m effivlm fetch`: bring the sets of tasks to this machine, once."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from effivlm import registry
from effivlm.data.fetch import bill, fetch, size_of
from effivlm.data.places import data_home
from effivlm.data.source import Source
from effivlm.suites import expanded
from effivlm.tasks._benchmark import Benchmark


def add(command: Callable[..., Any]) -> None:
    parser = command(
        "fetch",
        "bring the published sets of tasks or suites to this machine, once; runs are offline afterwards",
        run,
        "docvqa gqa",
        "paper --size",
    )
    parser.add_argument(
        "tasks", nargs="+", metavar="TASK[@REVISION]", help="a task, at a commit if wanted, or a suite such as paper"
    )
    parser.add_argument(
        "--into", type=Path, metavar="DIR", help="folder of sets (default: $EFFIVLM_DATA or the user's cache)"
    )
    parser.add_argument("--size", action="store_true", help="only say how large they are")


def run(options: argparse.Namespace) -> int:
    root = (options.into or data_home()).expanduser()
    wanted = [_pinned(word) for word in expanded("tasks", options.tasks)]
    wanted = [(name, sources) for name, sources in wanted if sources or _nothing(name)]
    if options.size:
        total = 0
        for name, sources in wanted:
            found = bill(name, sources, root)
            total += found.missing
            print(f"{name}: {size_of(found.total)}, {size_of(found.missing)} of them still to come ({found.home})")
        print(f"together: {size_of(total)} to bring into {root}")
        return 0
    for name, sources in wanted:
        fetch(name, sources, root, lambda line: print(line, flush=True))
    return 0


def _pinned(word: str) -> tuple[str, Sequence[Source]]:
    """A task and its sets, at the revision behind an "@" where there is one; ValueError for one of a task without a set."""
    name, at, revision = word.partition("@")
    sources = sources_of(name)
    if at and not (sources and revision):
        raise ValueError(
            f"{word!r}: {f'{name} has no published set' if revision else 'a revision is missing behind @'}"
        )
    return name, [replace(one, revision=revision) for one in sources] if at else sources


def sources_of(name: str) -> Sequence[Source]:
    """The published sets behind a task; none for one that makes its samples. ValueError for an unknown name."""
    kind = registry.load("tasks", registry.check("tasks", name))
    if not issubclass(kind, Benchmark):
        return ()
    return [kind.source, *([extra] if (extra := getattr(kind, "pictures", None)) else [])]


def _nothing(name: str) -> bool:
    print(f"{name}: nothing to bring, its samples are made here")
    return False
