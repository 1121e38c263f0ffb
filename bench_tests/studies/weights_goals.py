"""What the table of methods of weights is expected to show, each beside what it shows: a goal that is missed says so."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

Row = Mapping[str, Any]


class Goal(NamedTuple):
    """In words, the most that is allowed for each model in order, and what is measured of one."""

    words: str
    most: Sequence[float]
    of: Callable[[Callable[..., Row]], float]


def _kl(row: Row) -> float:
    return statistics.fmean(row["kl"].values())


def _score(row: Row) -> float:
    return statistics.fmean(row["score"].values())


def _over(method: str, other: str, budget: str, variant: str = "plain") -> Callable[[Callable[..., Row]], float]:
    """KL of a method over that of another at the same budget."""
    return lambda row: _kl(row(method, budget, variant)) / _kl(row(other, budget, variant))


def _lost(budget: str, methods: Sequence[str]) -> Callable[[Callable[..., Row]], float]:
    """The most score that one of the methods loses."""
    return lambda row: max(_score(row("dense", "1.00")) - _score(row(name, budget)) for name in methods)


GOALS = (
    Goal("KL of `sparsegpt@balanced` at 50 %", (0.060, 0.060, 0.020), lambda row: _kl(row("sparsegpt@balanced", "sparsity0.50"))),
    Goal("KL of `sparsegpt@balanced` at 2:4", (0.17, 0.40, 0.17), lambda row: _kl(row("sparsegpt@balanced", "2:4"))),
    Goal("KL of `gptq` over `rtn`, W4 g128", (0.8, 0.8, 0.8), _over("gptq", "rtn", "w4g128")),
    Goal("KL of `gptq@balanced` over `rtn`, W4 g128", (0.8, 0.8, 0.8), _over("gptq@balanced", "rtn", "w4g128")),
    Goal("KL of `gptq` over `rtn`, W2 g32", (0.4, 0.4, 0.4), _over("gptq", "rtn", "w2g32")),
    Goal("KL of `gptq@balanced` over `rtn`, W2 g32", (0.4, 0.4, 0.4), _over("gptq@balanced", "rtn", "w2g32")),
    Goal("KL of `awq` over `rtn`, W4 g128, salient", (0.7, 0.7, 0.7), _over("awq", "rtn", "w4g128", "salient")),
    Goal("KL of `wanda` over `magnitude` at 50 %, salient", (1, 1, 1), _over("wanda", "magnitude", "sparsity0.50", "salient")),
    Goal("score lost at 20 % by the worst pruning", (0.02, 0.02, 0.02), _lost("sparsity0.20", ("wanda", "sparsegpt", "ecoflap"))),
    Goal("score lost at W4 g128 by the worst rounding", (0.02, 0.02, 0.02), _lost("w4g128", ("gptq", "awq"))),
)  # fmt: skip


def goals(rows: Sequence[Row], models: Sequence[str]) -> list[str]:
    """A table in Markdown of those goals that the rows can speak of; ! marks what is above."""
    held = {(row["model"], row["variant"], row["method"], row["budget"]): row for row in rows}

    def of(model: str) -> Callable[..., Row]:
        return lambda method, budget, variant="plain": held[model, variant, method, budget]

    lines = ["## Goals", "", f"| at most | {' | '.join(models)} |", "|---" * (len(models) + 1) + "|"]
    for goal in GOALS:
        cells = []
        for model, most in zip(models, goal.most, strict=True):
            try:
                found = goal.of(of(model))
            except KeyError:  # such a row was not asked for
                cells.append("-")
                continue
            cells.append(f"{found:.3f} of {most:g}{' !' if found > most else ''}")
        lines.append(f"| {goal.words} | {' | '.join(cells)} |")
    return lines if len(lines) > 4 else []
