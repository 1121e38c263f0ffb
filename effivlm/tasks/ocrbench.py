"""OCRBench: reading words, scenes, documents, receipts and formulas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from effivlm.data.rows import Row
from effivlm.data.source import Source
from effivlm.metrics.contains import contains
from effivlm.records import Sample
from effivlm.tasks._benchmark import Benchmark, numbered

FORMULAS = "HME100k"


class Ocrbench(Benchmark):
    """OCRBench (arXiv 2305.07895): 1,000 questions of ten kinds; the score is the number of right ones.

    Licence: MIT for the questions; pictures of some 25 sets under their own terms. Official scorer: the text is contained; in
    formulas case counts and blanks do not. The paper's code lower-cases the answer and not the formula, so its scores end at
    966. Long answers gain by the rule; guessing scores 0.
    """

    source: ClassVar[Source] = Source(
        homes=("echo840/OCRBench",),
        split="test",
        rows=1000,
        columns={
            "question": "text",
            "answer": "[text]",
            "dataset": "text",
            "question_type": "text",
            "image": "image",
        },
        licence="MIT; pictures under the terms of their sets",
    )
    index: ClassVar[tuple[str, ...]] = ("question", "question_type")
    metric: ClassVar[str] = "contains"
    answer_type: ClassVar[str] = "ocr"
    profiles: ClassVar[tuple[str, ...]] = ("fixed", "compat")
    scale: ClassVar[float] = 1000.0
    max_new_tokens: ClassVar[int] = 128
    dense: ClassVar[dict[str, float]] = {"llava_onevision": 595.0, "qwen2_vl": 813.0, "internvl2_5": 802.0}
    comparable: ClassVar[str] = "yes, but for up to 34 formulas, which the paper's code cannot score"

    def name(self, row: Row, item: Any) -> str:
        return numbered(row, row["question"])

    def counts_in(self, row: Row) -> str:
        return str(row["question_type"])

    def reported(self, part: str) -> Sequence[str]:
        return (part,)

    def part_scale(self, of: Sequence[str], n: int) -> float:
        """Right answers of a type are counted, of 50 to 200."""
        return float(n)

    def prompt(self, row: Row, item: Any) -> str:
        return str(row["question"])

    def references(self, row: Row, item: Any) -> tuple[str, ...]:
        return tuple(row["answer"])

    def facts(self, row: Row, item: Any) -> dict[str, Any]:
        return {"formula": row["dataset"] == FORMULAS}

    def score(self, text: str, sample: Sample) -> float:
        return contains(text, sample.references, formula=sample.facts["formula"], profile=self.profile)
