"""`python -m effivlm run ... --on ray`: the same suite, its samples answered by the workers of a cluster."""

from __future__ import annotations

import argparse
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from effivlm.cluster.driver import Suite
from effivlm.cluster.worker import Worker
from effivlm.plugin import options
from effivlm.report.terminal import table
from effivlm.report.write import OUTCOMES, write
from effivlm.session import matrix
from effivlm.session.places import claim

ENGINE = "ray"


def address_of(text: str) -> str:
    """What stands behind `ray://`; "" for `ray` alone. ValueError for anything else."""
    engine, _, address = text.partition("://")
    if engine != ENGINE or (text != ENGINE and not address):
        raise ValueError(f"--on: {text!r} is not ray or ray://ADDRESS, e.g. ray://10.0.0.1:6379")
    return address


def run(
    on: str,
    arguments: Sequence[str],
    kind: type = Worker,
    setup: Callable[[], None] | None = None,
) -> int:
    """Run the suite that `arguments`, options of the plugin, ask for, and make its report; the exit code.

    `kind` is the class of the workers, and `setup` runs in each of their processes first.

    Raises:
        ValueError: an option is wrong or none of the plugin's; Ray is missing, or no cluster answers; the folder holds a run.
    """
    address = address_of(on)
    option = _parsed(arguments)
    plan = matrix.build(options.asked_of(option))
    if not plan.settings.share:
        raise ValueError("--vlm-no-share runs cells alone in one process: leave --on away")
    folder = _folder(option)
    say: Callable[[str], None] = lambda text: print(text, flush=True)  # noqa: E731
    say(f"effivlm: {len(plan.cells)} cells, {plan.settings.limit} samples a cell, on {on}: {folder}")
    command = ["python", "-m", "effivlm", "run", "--on", on, "--", *arguments]
    suite = Suite(plan, folder, bool(option.vlm_resume), command, Path.cwd(), kind, say)
    code = suite.run(address, setup)
    print(table(write(folder)), end="")
    for note in suite.notes:
        print(f"note: {note}")
    print(f"report: {folder / 'report.html'}")
    return code


class _Group:
    """The plugin's options, added to a parser that is not pytest's."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._parser = parser

    def addoption(self, *names: str, **how: Any) -> None:
        self._parser.add_argument(*names, **how)


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    options.add(_Group(parser))
    try:
        option, others = parser.parse_known_args(list(arguments))
    except argparse.ArgumentError as error:
        raise ValueError(str(error)) from None
    if others:
        raise ValueError(f"{shlex.join(others)}: with --on only options that begin with --vlm- may stand behind --")
    return option


def _folder(option: argparse.Namespace) -> Path:
    """The run folder: the named one, or a new one in `reports/`."""
    if option.vlm_resume and option.vlm_run:
        raise ValueError("--vlm-run names a new folder and --vlm-resume an old one: give one of them")
    if option.vlm_resume:
        folder = Path(option.vlm_resume).expanduser()
        if not (folder / OUTCOMES).exists():
            raise ValueError(f"--vlm-resume: {folder} holds no {OUTCOMES}, so there is no run to go on with")
        return folder
    if option.vlm_run:
        folder = Path(option.vlm_run).expanduser()
        if (folder / OUTCOMES).exists():
            raise ValueError(
                f"--vlm-run: {folder} holds a run already; go on with --vlm-resume, or name another folder"
            )
        return folder
    return claim(Path("reports"), time.strftime("%Y%m%d-%H%M%S"))
