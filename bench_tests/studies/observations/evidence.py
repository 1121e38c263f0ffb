"""All that claims are measured on: the tally's scores and agreements in resamples, and what was timed or counted elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from bench_tests.studies.observations.book import Book
from bench_tests.studies.observations.tally import Tally


@dataclass(frozen=True)
class Evidence:
    """`reports`: documents of efficiency runs; `mass`: what `sinks.py` counted, empty where it was not run."""

    tally: Tally
    reports: Sequence[Mapping[str, Any]] = ()
    mass: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def scores(self) -> Book:
        return Book.of(self.tally, "scores")

    @cached_property
    def same(self) -> Book:
        return Book.of(self.tally, "same")
