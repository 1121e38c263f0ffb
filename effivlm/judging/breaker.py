"""A judge that is not asked any more once it has failed too often in a row."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Lock

from effivlm.judging.judge import Judge, Query, Reply, Unanswered

IN_A_ROW = 8


@dataclass(slots=True)
class Breaker:
    """A judge behind a count: after `most` queries in a row without a reply (each of them tried again as often as the judge does)
    the rest stay unanswered at once, with the last reason. A dead server then costs minutes instead of a night, and whoever asks
    another time begins anew.

    Raises ValueError for `most` under 1.
    """

    judge: Judge
    most: int = IN_A_ROW
    _failures: int = field(default=0, init=False)
    _reason: str = field(default="", init=False)
    _counting: Lock = field(default_factory=Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.most < 1:
            raise ValueError(f"a judge fails at least once before it is given up, got {self.most}")

    @property
    def name(self) -> str:
        return self.judge.name

    def reply(self, query: Query, repeat: int = 0) -> Reply:
        """The judge's reply. Raises Unanswered as it does, and for every query after the last that it may fail."""
        if self._failures >= self.most:
            raise Unanswered(
                f"{self.name} is not asked any more: {self.most} queries in a row had no reply, the last: {self._reason}"
            )
        try:
            found = self.judge.reply(query, repeat)
        except Unanswered as error:
            with self._counting:
                self._failures += 1
                self._reason = str(error)
            raise
        with self._counting:
            self._failures = 0 if self._failures < self.most else self._failures
        return found
