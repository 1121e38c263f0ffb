"""How methods of a case are written: `fastv@effivlm:0.40+kvpress:SnapKVPress(window_size=16)`.

Several are joined by +, each with a preset behind @ and a budget of its own behind a colon; what an open method runs stands
behind a colon too, and what is in parentheses is its alone.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

JOIN, FIXED, PRESET = "+", ":", "@"


class Read(NamedTuple):
    """One method: its name with what it runs, its preset and its budget, "" where none is written; `fixed`: a budget is."""

    name: str
    preset: str
    keep: str
    fixed: bool


def apart(text: str, mark: str) -> list[str]:
    """`text` cut at every `mark` outside of parentheses; at every one where parentheses do not close."""
    pieces, depth = [""], 0
    for char in text:
        depth += (char == "(") - (char == ")")
        if char == mark and not depth:
            pieces.append("")
        else:
            pieces[-1] += char
    return pieces if not depth else text.split(mark)


def joined(text: str) -> list[str]:
    """The methods of a composition; a single one alone."""
    return apart(text, JOIN) if JOIN in text else [text]


def read(text: str, opened: Collection[str]) -> Read:
    """One method, where `opened` are those that run something."""
    head, *more = apart(text, FIXED)
    if more and head in opened:
        head += FIXED + more.pop(0)
    name, _, preset = head.partition(PRESET)
    return Read(name, preset, FIXED.join(more), bool(more))
