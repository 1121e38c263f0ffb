"""Suites: one word for a list of tasks, models or methods, declared in `suites.json`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("suites.json")


@cache
def suites(kind: str) -> Mapping[str, tuple[str, ...]]:
    """The suites of a kind ("tasks", "models" or "methods"): word -> names."""
    found = json.loads(FILE.read_text(encoding="utf-8"))[kind]
    return {word: tuple(names) for word, names in found.items()}


def expanded(kind: str, values: Iterable[str]) -> tuple[str, ...]:
    """`values` with every suite replaced by what it stands for; each name once, where it first occurs."""
    known = suites(kind)
    return tuple(dict.fromkeys(name for value in values for name in known.get(value, (value,))))
