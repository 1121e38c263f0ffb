"""What benchmarks scored by a judge share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from effivlm.records import Sample, Unsupported
from effivlm.tasks._benchmark import Benchmark


class Judged(Benchmark):
    """A benchmark of open answers. Without a judge it is unsupported: no proxy is ever reported under its name.

    `rubric` names what a judge is asked ("" where a score needs more than one mark an answer, which no run gives yet); a run
    that has a judge sets `mark`, the mark of an answer in [0, 1].
    """

    scoring: ClassVar[str] = "judge"
    rubric: ClassVar[str] = ""
    mark: Callable[[str, Sample], float] | None = None

    def samples(self, limit: int, seed: int) -> Sequence[Sample]:
        if self.mark is None:
            raise Unsupported(self._without())
        return super().samples(limit, seed)

    def score(self, text: str, sample: Sample) -> float:
        if self.mark is None:
            raise Unsupported(self._without())
        return self.mark(text, sample)

    def judged(self, name: str, mark: Callable[[str, Sample], float]) -> None:
        """Take a judge; its name and its prompt's hash stand in the metric's name, so that scores of two are never mixed."""
        self.mark = mark
        self.__dict__["metric"] = f"judge ({name})"

    def _without(self) -> str:
        if not self.rubric:
            return f"task {self.title!r} is scored by the ratio of two marks of a judge, which no run gives yet"
        return f"task {self.title!r} is scored by a judge, and none is configured: name one with --vlm-judge"
