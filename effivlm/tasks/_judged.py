"""What benchmarks scored by a judge share, as long as no judge is configured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from effivlm.records import Sample, Unsupported
from effivlm.tasks._benchmark import Benchmark


class Judged(Benchmark):
    """A benchmark of open answers. Without a judge it is unsupported: no proxy is ever reported under its name."""

    scoring: ClassVar[str] = "judge"
    judge: str = ""

    def samples(self, limit: int, seed: int) -> Sequence[Sample]:
        if not self.judge:
            raise Unsupported(f"task {self.title!r} is scored by a judge, and none is configured")
        return super().samples(limit, seed)

    def score(self, text: str, sample: Sample) -> float:
        raise Unsupported(f"task {self.title!r} is scored by a judge, and none is configured")
