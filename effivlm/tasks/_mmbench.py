"""What the languages of MMBench share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from effivlm.data.rows import Row
from effivlm.metrics.circular import circular
from effivlm.metrics.mmbench import ROTATION, mmbench, mmbench_letter
from effivlm.records import Sample
from effivlm.tasks._base import Scores
from effivlm.tasks._benchmark import Choice, listed, together_all


class Mmbench(Choice):
    """Rotations of a question are asked together, and the score is the share of questions with all of them right."""

    columns: ClassVar[Mapping[str, str]] = {
        "index": "int",
        "question": "text",
        "hint": "text?",
        "answer": "text",
        **dict.fromkeys("ABCD", "text?"),
        "image": "image",
    }
    index: ClassVar[tuple[str, ...]] = ("index",)
    instruction: ClassVar[str]
    jointly: ClassVar[bool] = True
    average: ClassVar[str] = "groups"
    profiles: ClassVar[tuple[str, ...]] = ("fixed", "compat")

    def name(self, row: Row, item: Any) -> str:
        return str(row["index"] // ROTATION)

    def together(self, row: Row) -> str:
        return str(row["index"] % ROTATION)

    def options(self, row: Row) -> Sequence[str]:
        return [row[mark] for mark in "ABCDE" if _said(row.get(mark))]

    def prompt(self, row: Row, item: Any) -> str:
        hint = f"{row['hint']} " if _said(row["hint"]) else ""
        options = listed(self.options(row))
        return f"{hint}{row['question']} There are several options:\n{options}{self.instruction}"

    def references(self, row: Row, item: Any) -> tuple[str, ...]:
        return (row["answer"],)

    def read(self, text: str, sample: Sample) -> str:
        return mmbench_letter(text, sample.facts["options"], self.profile)

    def score(self, text: str, sample: Sample) -> float:
        return float(self.read(text, sample) == sample.references[0])

    def settle(self, ids: Sequence[str], scores: Scores) -> list[float | None]:
        return together_all(ids, scores, circular)

    def overall(self, ids: Sequence[str], scores: Sequence[float]) -> float:
        """Mean over questions, not over their rotations, of which some have two and some four."""
        parted = [one.rpartition("-") for one in ids]
        indices = [int(turn) * ROTATION + int(question) for question, _, turn in parted]
        return mmbench(indices, scores, self.profile)


def _said(text: str | None) -> bool:
    """The set writes an empty cell of its table as "nan"."""
    return bool(text) and text != "nan"
