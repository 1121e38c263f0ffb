"""EgoSchema: multiple choice over three minutes of somebody's own view."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from effivlm.data.rows import Row
from effivlm.data.source import Source
from effivlm.metrics.egoschema import INVALID, egoschema, egoschema_index
from effivlm.records import Sample
from effivlm.tasks._benchmark import LETTER, LETTERS
from effivlm.tasks._video import VideoChoice


class Egoschema(VideoChoice):
    """The 500 questions of EgoSchema (arXiv 2308.09126) whose answers are public, with five options each.

    Licence: Ego4D's. Official scorer: the letter, as in lmms-eval's `egoschema_subset` (`metrics/egoschema.py`).
    Guessing scores 20.
    """

    source: ClassVar[Source] = Source(
        homes=("lmms-eval/egoschema", "lmms-lab/egoschema"),
        configs=("Subset",),
        split="test",
        rows=500,
        columns={
            "question_idx": "text|int",
            "video_idx": "text",
            "question": "text",
            "option": "[text]",
            "answer": "text|int",
        },
        files=("*.zip",),
        licence="Ego4D licence",
    )
    index: ClassVar[tuple[str, ...]] = ("question_idx", "video_idx")
    metric: ClassVar[str] = "accuracy"
    answer_type: ClassVar[str] = "choice"
    profiles: ClassVar[tuple[str, ...]] = ("fixed", "compat")
    max_new_tokens: ClassVar[int] = 16
    chance: ClassVar[float] = 20.0

    def name(self, row: Row, item: Any) -> str:
        return str(row["question_idx"])

    def videos(self, row: Row) -> Sequence[str]:
        return [f"{folder}{row['video_idx']}{end}" for folder in ("videos/", "") for end in (".mp4", ".MP4")]

    def options(self, row: Row) -> Sequence[str]:
        return [text.partition(". ")[2] or text for text in row["option"]]

    def prompt(self, row: Row, item: Any) -> str:
        options = "\n".join(row["option"])
        return f"{row['question']}\n{options}{LETTER}"

    def facts(self, row: Row, item: Any) -> dict[str, Any]:
        return {**super().facts(row, item), "marked": tuple(row["option"])}

    def read(self, text: str, sample: Sample) -> str:
        found = egoschema_index(text.strip(), sample.facts["marked"], self.profile)
        return "" if found == INVALID else LETTERS[found]

    def score(self, text: str, sample: Sample) -> float:
        places = [str(LETTERS.index(reference)) for reference in sample.references]
        return egoschema(text, places, sample.facts["marked"], self.profile)

    def references(self, row: Row, item: Any) -> tuple[str, ...]:
        return (LETTERS[int(row["answer"])],)
