"""SEED-Bench: multiple choice over pictures in nine dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from effivlm.data.rows import Row
from effivlm.data.source import Source
from effivlm.metrics.seedbench import seedbench
from effivlm.records import Sample
from effivlm.tasks._benchmark import LETTER, Choice, listed


class SeedImage(Choice):
    """The picture part of SEED-Bench (arXiv 2307.16125): 14,233 of its 17,990 questions.

    Licence: CC BY-NC 4.0. Official scorer: the letter, as in lmms-eval's `seedbench` (`seed_image`; here
    `metrics/seedbench.py`). Guessing scores 25.
    """

    source: ClassVar[Source] = Source(
        homes=("lmms-lab-encoder/SEED-Bench", "lmms-lab/SEED-Bench"),
        split="test",
        rows=17990,
        columns={
            "question_id": "text|int",
            "data_id": "text",
            "data_type": "text",
            "question": "text",
            "answer": "text",
            **{f"choice_{mark}": "text" for mark in "abcd"},
            "image": "[image]",
        },
        licence="CC BY-NC 4.0",
    )
    index: ClassVar[tuple[str, ...]] = ("question_id", "data_id", "data_type")
    metric: ClassVar[str] = "accuracy"
    answer_type: ClassVar[str] = "choice"
    profiles: ClassVar[tuple[str, ...]] = ("fixed", "compat")
    max_new_tokens: ClassVar[int] = 16
    group: ClassVar[int] = 2
    chance: ClassVar[float] = 25.0

    def wanted(self, row: Row) -> bool:
        return bool(row["data_type"] == "image")

    def name(self, row: Row, item: Any) -> str:
        return str(row["question_id"])

    def together(self, row: Row) -> str:
        return str(row["data_id"])

    def options(self, row: Row) -> Sequence[str]:
        return [row[f"choice_{mark}"] for mark in "abcd"]

    def prompt(self, row: Row, item: Any) -> str:
        return f"{row['question']}\n{listed(self.options(row))}{LETTER}"

    def score(self, text: str, sample: Sample) -> float:
        return seedbench(text, sample.references, sample.facts["options"], self.profile)

    def references(self, row: Row, item: Any) -> tuple[str, ...]:
        return (row["answer"],)

    def images(self, row: Row) -> Sequence[Any]:
        return list(row["image"])
