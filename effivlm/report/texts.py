"""How the terminal writes: names, numbers, and blocks of rows as wide as it allows; "-" stands where there is no value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from effivlm.report import budgets
from effivlm.report.closing import WIDTH

BLOCK_ROWS = 60
NONE = "-"


def block(
    title: str, head: Sequence[str], body: Mapping[str, Sequence[Sequence[str]]], more: Sequence[str] = ()
) -> list[str]:
    """Rows under their budgets' heads, as wide as the terminal allows, and lines after them."""
    rows = [row for those in body.values() for row in those]
    wide = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]
    wide[0] = min(wide[0], WIDTH - sum(wide[1:]) - 2 * (len(wide) - 1))
    lines = [line(head, wide)]
    shown = 0
    for of, those in body.items():
        if of not in ("", "dense") and shown < BLOCK_ROWS:
            lines.append(f"{budgets.heading(of)}:")
        lines += [line(row, wide) for row in those[: BLOCK_ROWS - shown]]
        shown = min(BLOCK_ROWS, shown + len(those))
    cut = [f"and {len(rows) - BLOCK_ROWS} more rows: see report.html"] if len(rows) > BLOCK_ROWS else []
    return ["", short(title, WIDTH), *lines, *cut, *more]


def line(row: Sequence[str], wide: Sequence[int]) -> str:
    first = short(row[0], wide[0]).ljust(wide[0])
    return "  ".join([first, *(text.rjust(width) for text, width in zip(row[1:], wide[1:], strict=True))])


def method(row: Mapping[str, Any]) -> str:
    name: str = row["method"]
    return name if row["preset"] in ("paper", "") else f"{name}@{row['preset']}"


def number(value: float | None, digits: int, scale: float = 1.0) -> str:
    return NONE if value is None else f"{value * scale:.{digits}f}"


def interval(ends: Sequence[float] | None, digits: int) -> str:
    return "" if ends is None else f"[{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]"


def short(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(1, width - 2)] + ".."
