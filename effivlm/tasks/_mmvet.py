"""MM-Vet's questions, for the judge's task and its proxy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from effivlm.data.rows import Row
from effivlm.data.source import Source
from effivlm.records import Sample
from effivlm.tasks._benchmark import Benchmark

SOURCE = Source(
    homes=("lmms-lab-encoder/MMVet", "lmms-lab/MMVet"),
    split="test",
    rows=218,
    columns={"question_id": "text", "question": "text", "answer": "text", "capability": "text", "image": "image?"},
    licence="CC BY-NC 4.0",
)
THINK = "First please perform reasoning, and think step by step to provide best answer to the following question: \n\n"


class Vet(Benchmark):
    """Questions that may come without a picture, and name the abilities they need."""

    index: ClassVar[tuple[str, ...]] = ("question_id", "capability")

    def name(self, row: Row, item: Any) -> str:
        return str(row["question_id"])

    def counts_in(self, row: Row) -> str:
        return str(row["capability"])

    def reported(self, part: str) -> Sequence[str]:
        """The abilities that a question needs, in each of which it counts."""
        return [named.strip() for named in part.split(",")]

    def prompt(self, row: Row, item: Any) -> str:
        return f"{THINK}{row['question']}"

    def question(self, sample: Sample) -> str:
        return sample.prompt.removeprefix(THINK)

    def references(self, row: Row, item: Any) -> tuple[str, ...]:
        return (row["answer"],)

    def images(self, row: Row) -> Sequence[Any]:
        return [row["image"]] if row["image"] is not None else []

    def facts(self, row: Row, item: Any) -> dict[str, Any]:
        return {"capability": row["capability"]}
