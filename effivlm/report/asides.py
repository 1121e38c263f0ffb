"""What the page shows in sections that only some runs have: their rows as columns, and lists that many rows share once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from effivlm.report.payload import Places, columns, few_digits

SECTIONS = ("parameters", "compositions", "suites", "judges")
SHARED = ("tasks", "missing")
"""Lists of names that rows of a section share: they stand in "lists", and rows hold their places."""


def asides(document: Mapping[str, Any]) -> dict[str, Any]:
    """By section its rows, each empty where a run has nothing for it."""
    lists = Places()
    found = {}
    for name in SECTIONS:
        rows = [rounded(row) for row in document.get(name, [])]
        for row in rows:
            row |= {word: lists(row[word]) for word in SHARED if word in row}
        found[name] = columns(rows)
    return {**found, "lists": lists.names}


def rounded(value: Any) -> Any:
    """The same with few digits in every number, at whatever depth."""
    if isinstance(value, Mapping):
        return {name: rounded(one) for name, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list | tuple) else few_digits(value)
