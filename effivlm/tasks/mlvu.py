"""MLVU: multiple choice over videos of three minutes to two hours, in seven kinds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from effivlm.data.rows import Row
from effivlm.data.source import Source
from effivlm.metrics.videomme import mlvu_letter
from effivlm.records import Sample
from effivlm.tasks._benchmark import by_part, numbered
from effivlm.tasks._video import Video


class Mlvu(Video):
    """The multiple-choice part of MLVU's development set (arXiv 2406.04264); the score is the mean over kinds (M-Avg).

    Licence: CC BY-NC-SA 4.0. Official scorer: the letter, as in lmms-eval's `mlvu_dev`, found by `metrics/videomme.py`. Questions
    hold their options, as "(A) ...". Guessing scores about 25.
    """

    source: ClassVar[Source] = Source(
        homes=("sy1998/MLVU_dev",),
        split="test",
        rows=2174,
        columns={"video_name": "text", "question": "text", "answer": "text", "task_type": "text"},
        files=("*.zip",),
        licence="CC BY-NC-SA 4.0",
    )
    index: ClassVar[tuple[str, ...]] = ("video_name", "question", "task_type")
    metric: ClassVar[str] = "accuracy_by_kind"
    answer_type: ClassVar[str] = "choice"
    profiles: ClassVar[tuple[str, ...]] = ("fixed", "compat")
    max_new_tokens: ClassVar[int] = 16
    chance: ClassVar[float] = 25.0
    average: ClassVar[str] = "parts"

    def name(self, row: Row, item: Any) -> str:
        return numbered(row, row["video_name"] + row["question"])

    def stratum(self, row: Row) -> str:
        return str(row["task_type"])

    def reported(self, part: str) -> Sequence[str]:
        return (part,)

    def videos(self, row: Row) -> Sequence[str]:
        return [row["video_name"], f"videos/{row['video_name']}", f"video_part/{row['video_name']}"]

    def prompt(self, row: Row, item: Any) -> str:
        return f"{row['question']}\nOnly give the best option.\nBest option: ("

    def references(self, row: Row, item: Any) -> tuple[str, ...]:
        return (row["answer"],)

    def score(self, text: str, sample: Sample) -> float:
        return float(self.read(text, sample) == sample.references[0])

    def read(self, text: str, sample: Sample) -> str:
        return mlvu_letter(text, profile=self.profile)

    def invalid(self, text: str, sample: Sample) -> bool:
        return not mlvu_letter(text)

    def overall(self, ids: Sequence[str], scores: Sequence[float]) -> float:
        return by_part(self.known, ids, scores, self.stratum)
