"""What the paper's own tables give for a claim: mean shares of the dense scores that it printed, over the same benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

from bench_tests.studies.observations.names import BUDGETS
from bench_tests.studies.observations.tally import Setting
from effivlm.report.published import load

Key = tuple[str, str]


def _dense() -> dict[Key, float]:
    """Printed scores of the uncompressed models, by model and benchmark."""
    data = load()
    return {
        (model, name): score
        for model, scores in data["dense"].items()
        for name, score in zip(data["benchmarks"], scores, strict=True)
    }


@cache
def _shares() -> dict[Setting, dict[Key, float]]:
    """Of every printed setting, by model and benchmark: score over dense score. Names are ours, budgets our labels."""
    data = load()
    ours = {theirs: name for name, theirs in data["methods"].items()}
    dense = _dense()
    found: dict[Setting, dict[Key, float]] = {}

    def put(model: str, method: str, label: str, benchmark: str, score: float) -> None:
        found.setdefault((ours[method], label), {})[model, benchmark] = score / dense[model, benchmark]

    for table in ("pruning", "parameter"):
        for model, budget, method, _, scores in data[table]:
            label = data["weight_keeps"].get(budget) if table == "parameter" else f"{budget:.2f}"
            for name, score in zip(data["benchmarks"], scores, strict=True) if label else ():
                put(model, method, label, name, score)
    for model, name, method, scores in data["cache"]:
        for label, score in zip(BUDGETS, scores, strict=True):
            put(model, method, label, name, score)
    return found


def contrast(plus: Sequence[Setting], minus: Sequence[Setting]) -> Callable[[], float | None]:
    """What a claim calls for the paper's figure: mean of some settings less that of others, on what all of them have."""

    def told() -> float | None:
        tables = _shares()
        if not {*plus, *minus} <= set(tables):
            return None
        keys = set.intersection(*(set(tables[setting]) for setting in (*plus, *minus)))
        sides = [[tables[setting][key] for setting in side for key in keys] for side in (plus, minus)]
        return sum(sides[0]) / len(sides[0]) - sum(sides[1]) / len(sides[1]) if keys else None

    return told


def heads() -> float | None:
    """What heads that choose for themselves gain at 1 % in the paper's table, as a share of dense's score."""
    data = load()
    dense = _dense()
    gains = [(own - shared) / dense[model, name] for model, name, _, _, own, shared in data["heads"]]
    return float(sum(gains) / len(gains))


def printed(table: str, plus: Sequence[str], minus: Sequence[str], column: int) -> Callable[[], float | None]:
    """The same of the table of OG and OL in percent: `column` 0 is that of 1 %, 1 that of 40 %."""

    def told() -> float | None:
        data = load()
        values = {row[0]: row[1 + column] for row in data[table]}
        sides = [[values[data["methods"][name]] for name in side] for side in (plus, minus)]
        return float(sum(sides[0]) / len(sides[0]) - sum(sides[1]) / len(sides[1])) / 100

    return told
