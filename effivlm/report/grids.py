"""Method x task tables as papers print them: one for each model, a block for each budget, the best of a block in bold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from effivlm.report import budgets
from effivlm.report.costs import SPEEDUPS

DENSE = "dense"
NONE = "--"
HEADS = {"ttft": "TTFT x", "decode": "decode x", "batch": "batch x"}
Key = tuple[str, str, budgets.Keep]
Cell = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Grid:
    """One model: `head` are column names, dense's row, and by heading of a block its rows; a value that is not there is None."""

    model: str
    head: tuple[str, ...]
    dense: tuple[float | None, ...]
    blocks: Mapping[str, Mapping[str, tuple[float | None, ...]]]
    digits: tuple[int, ...]


def grids(document: Mapping[str, Any]) -> list[Grid]:
    """The tables of a document, models and tasks in its order: scores on their published scales, OP, and speed-ups (OE)."""
    return [_grid(document, model) for model in dict.fromkeys(cell["model"] for cell in document["cells"])]


def _grid(document: Mapping[str, Any], model: str) -> Grid:
    cells = [cell for cell in document["cells"] if cell["model"] == model]
    tasks = list(dict.fromkeys(cell["task"] for cell in cells))
    scores = {(_key(cell), cell["task"]): cell["score"] * cell["scale"] for cell in cells if cell["score"] is not None}
    whole = {
        "OP": _of_model(document["summary"]["op"], model),
        **{
            HEADS[word]: _of_model([row for row in document["summary"]["oe"] if row["of"] == word], model)
            for word in SPEEDUPS
        },
    }
    whole = {name: values for name, values in whole.items() if values}
    keys = sorted(dict.fromkeys(map(_key, cells)), key=lambda key: budgets.rank(key[2]))
    of = {_key(cell): (cell["achieved"] or {}).get("of", "") for cell in cells}

    def row(key: Key) -> tuple[float | None, ...]:
        dense = dict.fromkeys(whole, 1.0 if key[0] == DENSE else None)
        totals = [whole[name].get(key, dense[name]) for name in whole]
        return (*(scores.get((key, task)) for task in tasks), *totals)

    blocks: dict[str, dict[str, tuple[float | None, ...]]] = {}
    for key in sorted(keys, key=lambda key: budgets.section(key[2], of[key])):
        if key[0] != DENSE:
            blocks.setdefault(budgets.printed(key[2], of[key]), {})[_named(key)] = row(key)
    dense = next((row(key) for key in keys if key[0] == DENSE), (None,) * (len(tasks) + len(whole)))
    return Grid(
        model, (*tasks, *whole), dense, blocks, (*(1 for _ in tasks), *(3 if name == "OP" else 2 for name in whole))
    )


def _key(cell: Cell) -> Key:
    return cell["method"], cell["preset"], cell["keep"]


def _named(key: Key) -> str:
    return key[0] if key[1] == "paper" else f"{key[0]}@{key[1]}"


def _of_model(rows: Sequence[Cell], model: str) -> dict[Key, float | None]:
    """Values by setting; those on the common set come first and stay."""
    found: dict[Key, float | None] = {}
    for row in rows:
        if list(row["models"]) == [model]:
            found.setdefault(_key(row), row["value"])
    return found


def to_latex(grid: Grid, escaped: Callable[[str], str]) -> str:
    """A tabular of LaTeX alone; `escaped` makes any text harmless."""
    wide = len(grid.head) + 1
    lines = [
        rf"\begin{{tabular}}{{l{'r' * len(grid.head)}}}",
        r"\hline",
        _across(wide, rf"\textbf{{{escaped(grid.model)}}}"),
        r"\hline",
        " & ".join(["method", *map(escaped, grid.head)]) + r" \\",
        r"\hline",
        " & ".join([DENSE, *_shown(grid.dense, grid.digits)]) + r" \\",
    ]
    for heading, rows in grid.blocks.items():
        lines += [r"\hline", _across(wide, escaped(heading)), r"\hline"]
        shown = {name: _shown(values, grid.digits) for name, values in rows.items()}
        best = [_best([row[at] for row in shown.values() if row[at] != NONE]) for at in range(wide - 1)]
        for name, texts in shown.items():
            told = [rf"\textbf{{{text}}}" if text == most else text for text, most in zip(texts, best, strict=True)]
            lines.append(" & ".join([escaped(name), *told]) + r" \\")
    return "\n".join([*lines, r"\hline", r"\end{tabular}", ""])


def _across(wide: int, text: str) -> str:
    return rf"\multicolumn{{{wide}}}{{c}}{{{text}}} \\"


def _best(texts: Sequence[str]) -> str:
    """The largest number of a column as it is shown; "" where none is larger than another."""
    return max(texts, key=float) if len(set(texts)) > 1 else ""


def _shown(values: Sequence[float | None], digits: Sequence[int]) -> list[str]:
    return [NONE if value is None else f"{value:.{places}f}" for value, places in zip(values, digits, strict=True)]
