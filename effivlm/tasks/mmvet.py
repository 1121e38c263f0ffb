"""MM-Vet: open questions that need several abilities at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from effivlm.data.rows import Row
from effivlm.data.source import Source
from effivlm.tasks._judged import Judged

THINK = "First please perform reasoning, and think step by step to provide best answer to the following question: \n\n"


class Mmvet(Judged):
    """MM-Vet (arXiv 2308.02490): 218 questions, graded from 0 to 1 by a judge, with the paper's prompt that asks for reasons first.

    Licence: data CC BY-NC 4.0, code Apache-2.0. Official scorer: a language judge that is retired (gpt-4-0613); the same answers and
    the same judge gave 50.0 and 42.0 elsewhere. Guessing scores 0.
    """

    source: ClassVar[Source] = Source(
        homes=("lmms-lab-encoder/MMVet", "lmms-lab/MMVet"),
        split="test",
        rows=218,
        columns={"question_id": "text", "question": "text", "answer": "text", "capability": "text", "image": "image?"},
        licence="CC BY-NC 4.0",
    )
    index: ClassVar[tuple[str, ...]] = ("question_id",)
    metric: ClassVar[str] = "judge"
    answer_type: ClassVar[str] = "free"
    scoring: ClassVar[str] = "judge"
    max_new_tokens: ClassVar[int] = 1024
    dense: ClassVar[dict[str, float]] = {"llava_onevision": 55.0, "qwen2_vl": 67.4, "internvl2_5": 69.4}
    comparable: ClassVar[str] = "no: the paper's judge is retired"

    def name(self, row: Row, item: Any) -> str:
        return str(row["question_id"])

    def prompt(self, row: Row, item: Any) -> str:
        return f"{THINK}{row['question']}"

    def images(self, row: Row) -> Sequence[Any]:
        return [row["image"]] if row["image"] is not None else []

    def facts(self, row: Row, item: Any) -> dict[str, Any]:
        return {**super().facts(row, item), "capability": row["capability"]}

    def references(self, row: Row, item: Any) -> tuple[str, ...]:
        return (row["answer"],)
