"""ImageDC: describing a picture in detail."""

from __future__ import annotations

from typing import Any, ClassVar

from effivlm.data.rows import Row
from effivlm.data.source import Source
from effivlm.tasks._judged import Judged


class Imagedc(Judged):
    """ImageDC (DC100_EN): 100 pictures to describe; the judge sees the picture and rates the description from 0 to 100.

    Licence: none is stated. Official scorer: a vision-language judge that is retired (gpt-4-vision-preview). Collapsed models
    score 13 to 30. lmms-eval's present task of this name asks for right or wrong instead; its scores are others.
    """

    source: ClassVar[Source] = Source(
        homes=("lmms-lab-encoder/DC100_EN", "lmms-lab/DC100_EN"),
        split="test",
        rows=100,
        columns={"question_id": "text|int", "question": "text", "answer": "text", "image": "image"},
        licence="none stated",
    )
    index: ClassVar[tuple[str, ...]] = ("question_id",)
    metric: ClassVar[str] = "judge"
    answer_type: ClassVar[str] = "free"
    scoring: ClassVar[str] = "judge"
    rubric: ClassVar[str] = "imagedc"
    max_new_tokens: ClassVar[int] = 1024
    dense: ClassVar[dict[str, float]] = {"llava_onevision": 87.25, "qwen2_vl": 86.35, "internvl2_5": 86.45}
    comparable: ClassVar[str] = "no: the paper's judge is retired"

    def name(self, row: Row, item: Any) -> str:
        return str(row["question_id"])

    def prompt(self, row: Row, item: Any) -> str:
        return str(row["question"])

    def references(self, row: Row, item: Any) -> tuple[str, ...]:
        return (row["answer"],)
