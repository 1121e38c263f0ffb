"""How the terminal writes: names, numbers, and blocks of rows as wide as it allows; "-" stands where there is no value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
    apart = shortened((row[0] for row in (head, *rows)), wide[0])
    lines = [line(head, wide, apart)]
    shown = 0
    for of, those in body.items():
        if of not in ("", "dense") and shown < BLOCK_ROWS:
            lines.append(f"{budgets.heading(of)}:")
        lines += [line(row, wide, apart) for row in those[: BLOCK_ROWS - shown]]
        shown = min(BLOCK_ROWS, shown + len(those))
    cut = [f"and {len(rows) - BLOCK_ROWS} more rows: see report.html"] if len(rows) > BLOCK_ROWS else []
    return ["", short(title, WIDTH), *lines, *cut, *more]


def line(row: Sequence[str], wide: Sequence[int], apart: Mapping[str, str]) -> str:
    first = apart[row[0]].ljust(wide[0])
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


def shortened(names: Iterable[str], width: int) -> dict[str, str]:
    """Names no wider than `width`: their middle is left out, and where they would look alike all but what they differ in."""
    head = max(width, 8) // 2 - 1
    rest = max(width, 8) - 2 - head
    found = {name: name if len(name) <= width else f"{name[:head]}..{name[-rest:]}" for name in names}
    for text in set(found.values()):
        alike = [name for name in found if found[name] == text]
        differs = next((at for at, letters in enumerate(zip(*alike, strict=False)) if len(set(letters)) > 1), 0)
        for name in alike if len(alike) > 1 else ():
            start = min(differs, len(name) - rest)
            found[name] = f"{name[:head]}..{name[start : start + rest]}"
    return found
