"""Tables of written pages that are made from the code: they cannot say what it does not do."""

from __future__ import annotations

import argparse
import inspect
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from documented import plain, table

import effivlm.budget
from effivlm import __main__ as cli
from effivlm import registry
from effivlm.plugin import gate, options
from effivlm.suites import suites
from effivlm.tasks._folder import METRICS

ROOT = Path(__file__).parents[2]


def budgets() -> str:
    """The forms of a budget, as the module that reads them says."""
    text = inspect.cleandoc(effivlm.budget.__doc__ or "")
    return "\n".join(line for line in text.splitlines() if line.startswith("|"))


@dataclass
class Group:
    """What pytest's parser is given, kept as rows."""

    rows: list[tuple[str, str]] = field(default_factory=list)

    def addoption(self, name: str, help: str, default: Any = None, **_: Any) -> None:
        self.rows.append((f"`{name}`", plain(help.replace("%(default)s", str(default)).replace("%%", "%"))))


def plugin_options() -> str:
    group = Group()
    options.add(group)
    gate.add_options(group)
    return table(["option", "what it says"], group.rows)


def commands() -> str:
    (found,) = [one for one in cli._parser()._actions if isinstance(one, argparse._SubParsersAction)]
    return table(
        ["command", "what it does"],
        [(f"`python -m effivlm {one.dest}`", plain(one.help or "")) for one in found._choices_actions],
    )


def checkpoints() -> str:
    rows = []
    for family in registry.names("models"):
        for name, source in registry.declared("models", family)["checkpoints"].items():
            if not source.startswith("package:"):
                rows.append((f"`{name}`", f"`{source}`", family))
    return table(["name for `--vlm-models`", "repository", "family"], rows)


def every_suite() -> str:
    rows = [
        (f"`{word}`", kind, ", ".join(f"`{name}`" for name in names))
        for kind in ("tasks", "models", "methods")
        for word, names in suites(kind).items()
    ]
    return table(["suite", "of", "stands for"], rows)


def sharing() -> str:
    """What sharing saves, measured: the table of the README, from the same file."""
    sys.path.insert(0, str(ROOT / "bench_tests" / "studies"))
    import figures

    return figures.table(json.loads(figures.FILE.read_text(encoding="utf-8")))


def metrics() -> str:
    """Scorers that a row of a folder may name."""
    return ", ".join(f"`{name}`" for name in METRICS)


TABLES: dict[str, Callable[[], str]] = {
    "budgets": budgets,
    "options": plugin_options,
    "commands": commands,
    "checkpoints": checkpoints,
    "suites": every_suite,
    "sharing": sharing,
    "metrics": metrics,
}
