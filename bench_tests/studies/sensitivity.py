"""What compression does to the micro suite: `python bench_tests/studies/sensitivity.py` makes a page of the baseline.

The page is reports/baselines/sensitivity.md; every figure on it follows from the scores in reports/baselines/cpu_micro.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from scipy.stats import spearmanr

from effivlm.metrics.statistics import Estimate, bootstrap_mean
from effivlm.report.baseline import Measured, Side, load

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "reports" / "baselines" / "cpu_micro.json"
PAGE = ROOT / "reports" / "baselines" / "sensitivity.md"
RANDOM = ("random_visual", "random_kv")
FLOOR = 0.5  # a ratio to a dense score under this says little
SHOWN = 12
ENOUGH = 0.9


@dataclass(frozen=True)
class Grid:
    """Cells of a run by (model, method, keep, task); axes in the order of the run, budgets ascending, dense apart."""

    cells: dict[tuple[str, str, float, str], Measured]
    models: list[str]
    methods: list[str]
    keeps: list[float]
    tasks: list[str]

    @classmethod
    def of(cls, side: Side) -> Grid:
        """The grid of a side; ValueError when a cell of it is missing or a method has two presets."""
        cells: dict[tuple[str, str, float, str], Measured] = {}
        for one in side.cells.values():
            key = (one.data["model"], one.data["method"], float(one.data["keep"]), one.data["task"])
            if key in cells:
                raise ValueError(f"{side.name} holds {' '.join(map(str, key))} twice: with two presets?")
            cells[key] = one
        models, methods, tasks = (list(dict.fromkeys(key[part] for key in cells)) for part in (0, 1, 3))
        methods.remove("dense")
        keeps = sorted({keep for _, method, keep, _ in cells if method != "dense"})
        wanted = [(model, "dense", 1.0, task) for model in models for task in tasks]
        wanted += [(a, b, c, d) for a in models for b in methods for c in keeps for d in tasks]
        if missing := [key for key in wanted if key not in cells]:
            raise ValueError(f"{side.name} lacks {len(missing)} cells, such as {' '.join(map(str, missing[0]))}")
        return cls(cells, models, methods, keeps, tasks)

    def score(self, model: str, method: str, keep: float, task: str) -> float:
        return float(self.cells[model, method, keep, task].data["score"])

    def mean(self, models: Sequence[str], method: str, keep: float) -> float:
        """Mean score over these models and all tasks."""
        scores = [self.score(model, method, keep, task) for model in models for task in self.tasks]
        return sum(scores) / len(scores)

    def kept(self, model: str, method: str, keep: float, task: str) -> float | None:
        """Share of the dense score, None where dense is too low to divide by."""
        dense = self.score(model, "dense", 1.0, task)
        return self.score(model, method, keep, task) / dense if dense >= FLOOR else None

    def lost(self, model: str, method: str, keep: float, task: str) -> list[float]:
        """Score minus dense score of every independent sample, or group of samples that are scored together."""
        cell, dense = self.cells[model, method, keep, task], self.cells[model, "dense", 1.0, task]
        pairs = zip(cell.scores, dense.scores, strict=True)
        each = [0.0 if a is None or b is None else a - b for a, b in pairs]
        return [
            sum(each[at : at + cell.group]) / len(each[at : at + cell.group]) for at in range(0, len(each), cell.group)
        ]


def rank_correlation(values: Sequence[float]) -> float:
    """Spearman's rank correlation of values with their order; 0 where all are equal."""
    return float(spearmanr(range(len(values)), values).statistic) if len(set(values)) > 1 else 0.0


def below(estimate: Estimate) -> bool:
    """Whether the whole interval lies below nothing."""
    return estimate.interval is not None and estimate.interval[1] < 0


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _percents(keeps: Sequence[float]) -> list[str]:
    return [f"{100 * keep:g} %" for keep in keeps]


def correlation(grid: Grid, models: Sequence[str], method: str) -> float:
    """Rank correlation of a method's mean score over these models with the budget."""
    return rank_correlation([grid.mean(models, method, keep) for keep in grid.keeps])


def means(grid: Grid) -> list[str]:
    """Mean scores by method and budget, over all models and of each."""
    lines: list[str] = []
    for name, models in [("all models", grid.models), *((f"`{model}`", [model]) for model in grid.models)]:
        rows = []
        for method in grid.methods:
            values = [grid.mean(models, method, keep) for keep in grid.keeps]
            rows.append(
                [f"`{method}`", *(f"{value:.3f}" for value in values), f"{correlation(grid, models, method):.2f}"]
            )
        head = [f"{name}, dense {grid.mean(models, 'dense', 1.0):.3f}", *_percents(grid.keeps), "Spearman"]
        lines += [*table(head, rows), ""]
    return lines


def harm(grid: Grid) -> list[str]:
    """What random choice costs, with intervals, and on how many tasks for certain."""
    rows = []
    for model in grid.models:
        for method in (name for name in RANDOM if name in grid.methods):
            cells = []
            for keep in grid.keeps:
                each = {task: bootstrap_mean(grid.lost(model, method, keep, task)) for task in grid.tasks}
                change = sum(one.value or 0.0 for one in each.values()) / len(each)
                cells.append(f"{change:+.3f} ({sum(map(below, each.values()))} of {len(each)})")
            rows.append([f"`{model}`", f"`{method}`", *cells])
    return table(["model", "method", *_percents(grid.keeps)], rows)


def by_task(grid: Grid, keep: float) -> list[str]:
    """Share of the dense score kept at one budget, mean over the models, by task and method."""

    def shown(method: str, task: str) -> str:
        values = [grid.kept(model, method, keep, task) for model in grid.models]
        known = [value for value in values if value is not None]
        return (
            f"{sum(known) / len(known):.2f}" + (f" ({len(known)})" if len(known) < len(values) else "") if known else ""
        )

    rows = [[f"`{task}`", *(shown(method, task) for method in grid.methods)] for task in grid.tasks]
    return table([f"kept at {100 * keep:g} %", *(f"`{method}`" for method in grid.methods)], rows)


def differences(grid: Grid) -> list[str]:
    """Where models differ most in the share of the dense score that a method keeps."""
    found = []
    for method in grid.methods:
        for keep in grid.keeps:
            for task in grid.tasks:
                values = [grid.kept(model, method, keep, task) for model in grid.models]
                known = [value for value in values if value is not None]
                if len(known) == len(values):
                    found.append((max(known) - min(known), method, keep, task, known))
    found.sort(key=lambda one: (-one[0], one[1], one[2], one[3]))
    rows = [
        [f"`{method}`", f"{100 * keep:g} %", f"`{task}`", *(f"{value:.2f}" for value in known)]
        for _, method, keep, task, known in found[:SHOWN]
    ]
    return table(["method", "budget", "task", *(f"`{model}`" for model in grid.models)], rows)


def page(side: Side) -> str:
    """The page, as Markdown."""
    grid, run = Grid.of(side), side.run
    settings, versions = run["settings"], run["versions"]
    sets = [("all models together", grid.models), *((f"`{model}`", [model]) for model in grid.models)]
    low = [
        f"`{method}` on {name} ({found:.2f})"
        for name, models in sets
        for method in grid.methods
        if (found := correlation(grid, models, method)) < ENOUGH - 1e-9
    ]
    reached = f"Every method's mean rises with its budget: all rank correlations are {ENOUGH} or more."
    missed = f"Rank correlation below {ENOUGH}: {', '.join(low)}; all others are {ENOUGH} or more."
    worst: Callable[[str], float] = lambda method: max(  # noqa: E731
        grid.mean([model], method, grid.keeps[0]) / grid.mean([model], "dense", 1.0) for model in grid.models
    )
    chance = ", ".join(f"`{name}` {worst(name):.2f}" for name in RANDOM if name in grid.methods)
    lines = [
        "# What compression does to the micro suite",
        "",
        f"Made by `python bench_tests/studies/sensitivity.py` from `cpu_micro.json`: {len(grid.models)} models, "
        f"{len(grid.methods)} methods, {len(grid.keeps)} budgets, {len(grid.tasks)} tasks, {settings['limit']} samples a task, "
        f"seed {settings['seed']}, {settings['dtype']} on {settings['device']}, torch {versions['torch']}, transformers "
        f"{versions['transformers']}, {run['started'][:10]}. A budget is the share of visual tokens or of cache entries kept.",
        "",
        "## More budget helps",
        "",
        "Mean score over the tasks, and Spearman's rank correlation of it with the budget.",
        "",
        *means(grid),
        missed if low else reached,
        "",
        "## Random choice hurts",
        "",
        "Mean change of the score against dense, and on how many tasks the whole 95 % interval (paired bootstrap over samples "
        f"that are scored on their own) lies below nothing. At {100 * grid.keeps[0]:g} % the best of the models keeps this share "
        f"of its dense mean: {chance}.",
        "",
        *harm(grid),
        "",
        "## What each task feels",
        "",
        f"Share of the dense score kept, mean over models; models with a dense score under {FLOOR} are left out (how many are "
        "left stands in brackets).",
        "",
        *by_task(grid, min(grid.keeps, key=lambda keep: abs(keep - 0.1))),
        "",
        "## Where the families differ",
        "",
        f"The {SHOWN} largest differences between models in the share of the dense score kept.",
        "",
        *differences(grid),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, nargs="?", default=SOURCE, help="a run folder or a baseline")
    parser.add_argument("--out", type=Path, default=PAGE)
    asked = parser.parse_args()
    asked.out.write_text(page(load(asked.source)), encoding="utf-8")
    print(f"wrote {asked.out}")


if __name__ == "__main__":
    main()
