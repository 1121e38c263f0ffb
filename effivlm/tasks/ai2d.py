"""AI2D: multiple choice over diagrams of school books."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from effivlm.data.rows import Row
from effivlm.data.source import Source
from effivlm.metrics.ai2d import ai2d
from effivlm.records import Sample
from effivlm.tasks._benchmark import LETTER, LETTERS, Choice, listed, numbered


class Ai2d(Choice):
    """The test split of AI2D (arXiv 1603.07396) with the labels in the pictures left readable ("no mask"), as the paper asks it.

    Licence: CC BY-SA. Official scorer: exact match of the letter, as in lmms-eval's `ai2d_no_mask` (`metrics/ai2d.py`).
    Guessing scores 25.
    """

    source: ClassVar[Source] = Source(
        homes=("lmms-lab/ai2d-no-mask", "Efficient-Large-Model/ai2d-no-mask"),
        split="test",
        rows=3088,
        columns={"question": "text", "options": "[text]", "answer": "text|int", "image": "image"},
        licence="CC BY-SA 4.0",
    )
    index: ClassVar[tuple[str, ...]] = ("question",)
    metric: ClassVar[str] = "accuracy"
    answer_type: ClassVar[str] = "choice"
    profiles: ClassVar[tuple[str, ...]] = ("fixed", "compat")
    max_new_tokens: ClassVar[int] = 16
    chance: ClassVar[float] = 25.0
    dense: ClassVar[dict[str, float]] = {"llava_onevision": 89.96, "qwen2_vl": 91.02, "internvl2_5": 95.11}
    comparable: ClassVar[str] = "yes, where answers are letters"

    def name(self, row: Row, item: Any) -> str:
        return numbered(row, row["question"])

    def options(self, row: Row) -> Sequence[str]:
        return list(row["options"])

    def prompt(self, row: Row, item: Any) -> str:
        return f"{row['question']}\n{listed(self.options(row))}{LETTER}"

    def score(self, text: str, sample: Sample) -> float:
        return ai2d(text, sample.references, sample.facts["options"], self.profile)

    def references(self, row: Row, item: Any) -> tuple[str, ...]:
        return (LETTERS[int(row["answer"])],)
