"""All that claims are measured on: scores and agreements of the tally in resamples, and what efficiency runs timed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bench_tests.studies.observations.book import Book
from bench_tests.studies.observations.costs import Timed, timed
from bench_tests.studies.observations.tally import Cell, Group, Setting, Tally

EVERY = "mean scores"
"""What stands for a task where tasks are what is drawn."""


@dataclass(frozen=True)
class Evidence:
    """`reports`: documents of efficiency runs; `weights`: rows of the study of weights, which hold mean scores by task."""

    tally: Tally
    reports: Sequence[Mapping[str, Any]] = ()
    weights: Sequence[Mapping[str, Any]] = ()

    @cached_property
    def scores(self) -> Book:
        return Book.of(self.tally, "scores")

    @cached_property
    def by_task(self) -> Book:
        """Mean scores of tasks, which are drawn as samples are elsewhere: for what was measured as means alone."""
        found: dict[str, dict[Setting, dict[str, float]]] = {}
        for group in self.tally.groups:
            for setting, cell in group.cells.items():
                if known := [one for one in cell.scores if one is not None]:
                    found.setdefault(group.model, {}).setdefault(setting, {})[group.task] = sum(known) / len(known)
        for row in self.weights:
            if row["variant"] == "plain":
                found.setdefault(row["model"], {})[row["method"], row["budget"]] = dict(row["score"])
        tasks = sorted({task for own in found.values() for scores in own.values() for task in scores})
        groups = []
        for model, own in found.items():
            group = Group(model, EVERY, "", tasks, tasks, [0] * len(tasks))
            for setting, scores in own.items():
                group.cells[setting] = Cell([scores.get(task) for task in tasks], [None] * len(tasks), 1.0, 1.0)
            groups.append(group)
        return Book.of(Tally(groups, []))

    @cached_property
    def same(self) -> Book:
        return Book.of(self.tally, "same")

    @cached_property
    def timed(self) -> list[Timed]:
        return timed(self.reports)

    def length(self, task: str) -> float:
        """Tokens of a mean answer of dense."""
        every = [one for group in self.tally.groups if group.task == task for one in group.lengths]
        return sum(every) / len(every)
