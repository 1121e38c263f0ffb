"""What benchmarks share whose answers a judge marks after all of them are given."""

from __future__ import annotations

from typing import ClassVar

from effivlm.records import Sample, Unsupported
from effivlm.tasks._benchmark import Benchmark


class Judged(Benchmark):
    """A benchmark of open answers. A judge alone scores it: no proxy is ever reported under its name.

    There is no profile `compat`: the paper's judges are retired, and ours are asked in other words.
    """

    scoring: ClassVar[str] = "judge"

    def score(self, text: str, sample: Sample) -> float:
        raise Unsupported(f"task {self.title!r} is scored by a judge, by the rubric {self.rubric!r}")
