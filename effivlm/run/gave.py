"""What one sample gave: a record without tensors, which can be stored and taken in again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from effivlm.records import Answer, Cell
from effivlm.run.expected import Expected
from effivlm.run.faults import told
from effivlm.run.leaf import Leaf

_T = TypeVar("_T")


def _of(cells: Sequence[Cell], held: Mapping[Cell, _T]) -> dict[Cell, _T]:
    return {cell: held[cell] for cell in cells if cell in held}


@dataclass(frozen=True, slots=True)
class Reference:
    """Dense's answer to a sample, and what it expected on the way where that was asked for."""

    answer: Answer
    expected: Expected | None = None


@dataclass
class Asked:
    """All that one sample gave: answers, what was kept of its prompt (without tensors), and what could not be found out.

    `refused` are cells that turned out not to exist, `failed` cells that are given up; they have no answers. `notes` are lines
    that a report may show; `held` is the limit under which its pictures fit, 0 where that is the one asked for. `expected` is
    what dense expected along its answer, where cells of changed checkpoints are to be compared with that. Nothing in here holds a
    tensor, so that it can be stored.
    """

    answers: dict[Cell, Answer] = field(default_factory=dict)
    leaves: dict[Cell, Leaf] = field(default_factory=dict)
    refused: dict[Cell, str] = field(default_factory=dict)
    failed: dict[Cell, str] = field(default_factory=dict)
    lacking: list[tuple[Cell, str, str]] = field(default_factory=list)
    notes: list[dict[str, Any]] = field(default_factory=list)
    held: int = 0
    expected: Expected | None = None

    @property
    def ends(self) -> tuple[Mapping[Cell, Any], ...]:
        """What a cell comes to: an answer, or one of two reasons for having none."""
        return self.answers, self.refused, self.failed

    def unexpected(self, dense: Cell) -> bool:
        """Whether dense answered, and what it expected on the way is not there."""
        answer = self.answers.get(dense)
        return answer is not None and not answer.error and self.expected is None

    def of(self, cells: Sequence[Cell]) -> Asked:
        """The same of these cells alone, in their order, with what the report shows of any cell."""
        lacking = [one for one in self.lacking if one[0] in cells]
        parts = (_of(cells, self.answers), _of(cells, self.leaves), _of(cells, self.refused), _of(cells, self.failed))
        expected = self.expected if any(cell == cell.dense for cell in cells) else None
        return Asked(*parts, lacking, self.notes, self.held, expected)

    def lack(self, cells: Iterable[Cell], what: str, error: BaseException | str) -> None:
        reason = error if isinstance(error, str) else told(error)
        self.lacking += [(cell, what, reason) for cell in cells]


def broken(sample: str, prompt_sha256: str, error: BaseException) -> Answer:
    """No answer to a sample, and why."""
    return Answer(sample, prompt_sha256, "", "", None, error=told(error))
