"""What another image processor changes: `python bench_tests/studies/processors.py RUN OTHER` of two runs of the same cells.

The runs differ in `--vlm-processor` alone. Says for every model and setting how many answers read differently, and how many
became right or wrong, dense and compressed. `--out FILE` writes the table too.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from effivlm.records import Cell, Outcome
from effivlm.report.document import read
from effivlm.report.write import OUTCOMES

RIGHT = 0.5
HEAD = "| model | method | keep | answers | changed | right to wrong | wrong to right |\n" + "| --- " * 7 + "|"


@dataclass
class Counts:
    """Answers of one setting over all tasks, and what became of them."""

    answers: int = 0
    changed: int = 0
    worse: int = 0
    better: int = 0

    def add(self, one: Outcome, other: Outcome) -> None:
        """Take in a cell. Raises ValueError where the two were not asked the same."""
        theirs = {answer.id: answer for answer in other.answers}
        if {(answer.id, answer.prompt_sha256) for answer in one.answers} != {
            (answer.id, answer.prompt_sha256) for answer in other.answers
        }:
            raise ValueError(f"{one.cell.id} was asked other questions in the two runs")
        for answer in one.answers:
            later = theirs[answer.id]
            before, after = ((each.score or 0.0) >= RIGHT for each in (answer, later))
            self.answers += 1
            self.changed += answer.text != later.text
            self.worse += before and not after
            self.better += after and not before


def counted(folder: Path, other: Path) -> dict[tuple[str, str, str, str], Counts]:
    """Counts by model, method, preset and keep, of cells that both runs have. Raises ValueError where there is none."""
    sides = [_quality(place) for place in (folder, other)]
    found: dict[tuple[str, str, str, str], Counts] = {}
    for cell in sorted(set(sides[0]) & set(sides[1])):
        setting = (cell.model, cell.method, cell.preset, cell.keep)
        found.setdefault(setting, Counts()).add(sides[0][cell], sides[1][cell])
    if not found:
        raise ValueError(f"{folder} and {other} have no measured cell in common")
    return found


def _quality(folder: Path) -> dict[Cell, Outcome]:
    outcomes = read(folder / OUTCOMES)[1]
    return {one.cell: one for one in outcomes if one.part == "quality" and one.status == "ok"}


def table(found: dict[tuple[str, str, str, str], Counts]) -> str:
    """The counts as Markdown, dense first of each model, and their sums by dense and compressed."""
    rows, sums = [], {"dense": Counts(), "compressed": Counts()}
    for (model, method, preset, keep), own in sorted(
        found.items(), key=lambda one: (one[0][0], one[0][1] != "dense", one[0])
    ):
        name = method if preset == "paper" else f"{method}@{preset}"
        rows.append(f"| {model} | {name} | {keep} | {own.answers} | {own.changed} | {own.worse} | {own.better} |")
        total = sums["dense" if method == "dense" else "compressed"]
        for word in ("answers", "changed", "worse", "better"):
            setattr(total, word, getattr(total, word) + getattr(own, word))
    rows += [
        f"| all | {name} | | {own.answers} | {own.changed} | {own.worse} | {own.better} |"
        for name, own in sums.items()
        if own.answers
    ]
    return "\n".join([HEAD, *rows]) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("other", type=Path)
    parser.add_argument("--out", type=Path, help="a file for the table")
    options = parser.parse_args(arguments)
    text = table(counted(options.run, options.other))
    print(text, end="")
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
