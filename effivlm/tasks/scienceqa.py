"""ScienceQA: school questions that come with a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from effivlm.data.rows import Row
from effivlm.data.source import Source
from effivlm.metrics.scienceqa import scienceqa
from effivlm.records import Sample
from effivlm.tasks._benchmark import LETTER, LETTERS, Choice, listed, numbered


class Scienceqa(Choice):
    """The test questions of ScienceQA (arXiv 2209.09513) that have a picture ("ScienceQA-IMG").

    Licence: CC BY-NC-SA 4.0. Official scorer: exact match of the letter, as in lmms-eval's `scienceqa_img`
    (`metrics/scienceqa.py`). Guessing scores about 36 (two to five options).
    """

    source: ClassVar[Source] = Source(
        homes=("lmms-lab-encoder/ScienceQA", "lmms-lab/ScienceQA"),
        configs=("ScienceQA-IMG",),
        split="test",
        rows=2017,
        columns={"question": "text", "choices": "[text]", "answer": "int", "hint": "text?", "image": "image"},
        licence="CC BY-NC-SA 4.0",
    )
    index: ClassVar[tuple[str, ...]] = ("question",)
    metric: ClassVar[str] = "accuracy"
    answer_type: ClassVar[str] = "choice"
    profiles: ClassVar[tuple[str, ...]] = ("fixed", "compat")
    max_new_tokens: ClassVar[int] = 16
    chance: ClassVar[float] = 36.0

    def name(self, row: Row, item: Any) -> str:
        return numbered(row, row["question"])

    def options(self, row: Row) -> Sequence[str]:
        return list(row["choices"])

    def prompt(self, row: Row, item: Any) -> str:
        context = f"Context: {row['hint']}\n" if row["hint"] else ""
        return f"{context}{row['question']}\n{listed(self.options(row))}{LETTER}"

    def score(self, text: str, sample: Sample) -> float:
        return scienceqa(text, sample.references, sample.facts["options"], self.profile)

    def references(self, row: Row, item: Any) -> tuple[str, ...]:
        return (LETTERS[row["answer"]],)
