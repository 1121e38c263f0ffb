"""What a task is: samples, a prompt form, a metric, and how answers are compared."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, overload

from effivlm.records import Sample


class Task(ABC):
    """One benchmark. A subclass is one file; its literal class attributes are read without importing it.

    `metric` names the score's definition in the report, `answer_type` (choice, yes_no, number, short, ocr, free) decides when
    two answers count as the same, `scale` is the factor to the benchmark's published scale.
    """

    metric: ClassVar[str]
    answer_type: ClassVar[str]
    scale: ClassVar[float] = 100.0
    max_new_tokens: ClassVar[int] = 32
    version: ClassVar[int] = 1

    @abstractmethod
    def samples(self, limit: int, seed: int) -> Sequence[Sample]:
        """The first `limit` held-out samples of the subset that `seed` fixes (seed 0: the benchmark's own order)."""

    @abstractmethod
    def score(self, text: str, sample: Sample) -> float:
        """Score of one answer in [0, 1]; the higher the better."""

    def extract(self, text: str) -> str:
        """The part of the answer that is scored."""
        return text.strip()

    def aggregate(self, scores: Sequence[float]) -> float:
        """Score of the task from its samples' scores, in [0, 1]."""
        return sum(scores) / len(scores)


@dataclass(frozen=True, slots=True)
class Lazy(Sequence[Sample]):
    """`size` samples made when they are asked for, so that no more than one is held."""

    size: int
    make: Callable[[int], Sample]

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | Sequence[Sample]:
        if isinstance(index, slice):
            return [self.make(number) for number in range(*index.indices(self.size))]
        if not -self.size <= index < self.size:
            raise IndexError(index)
        return self.make(index % self.size)
