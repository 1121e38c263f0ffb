"""`python -m effivlm list`: names of methods, models and tasks, each with what its file says of it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from effivlm import registry
from effivlm.models._sources import RANDOM, shapes


def add(command: Callable[..., Any]) -> None:
    parser = command("list", "names that can be selected", run, "tasks")
    parser.add_argument("kind", nargs="?", choices=registry.KINDS, help="one kind only; all without it")


def run(options: argparse.Namespace) -> int:
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
