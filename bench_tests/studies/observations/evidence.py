"""All that claims are measured on: scores and agreements of the tally in resamples, and what efficiency runs timed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bench_tests.studies.observations.book import Book
from bench_tests.studies.observations.costs import Timed, timed
from bench_tests.studies.observations.tally import Tally


@dataclass(frozen=True)
class Evidence:
    """`reports`: documents of efficiency runs."""

    tally: Tally
    reports: Sequence[Mapping[str, Any]] = ()

    @cached_property
    def scores(self) -> Book:
        return Book.of(self.tally, "scores")

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
