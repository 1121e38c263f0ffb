"""Video-MME, of which tasks ask all lengths or one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from effivlm.data.rows import Row
from effivlm.data.source import Source
from effivlm.metrics.videomme import videomme_letter
from effivlm.records import Sample
from effivlm.tasks._benchmark import LETTER
from effivlm.tasks._video import VideoChoice

SOURCE = Source(
    homes=("lmms-eval/Video-MME", "lmms-lab/Video-MME"),
    split="test",
    rows=2700,
    columns={
        "videoID": "text",
        "question_id": "text",
        "duration": "text",
        "question": "text",
        "options": "[text]",
        "answer": "text",
    },
    files=("*.zip",),
    gigabytes=95.0,
    licence="research only",
)
ASKED = (
    "Select the best answer to the following multiple-choice question based on the video and the subtitles."
    " Respond with only the letter (A, B, C, or D) of the correct option."
)


class Videomme(VideoChoice):
    """Questions with options that carry their letters already."""

    profiles: ClassVar[tuple[str, ...]] = ("fixed", "compat")
    lengths: ClassVar[tuple[str, ...]] = ("short", "medium", "long")
    index: ClassVar[tuple[str, ...]] = ("question_id", "videoID", "duration")

    def wanted(self, row: Row) -> bool:
        return row["duration"] in self.lengths

    def name(self, row: Row, item: Any) -> str:
        return str(row["question_id"])

    def together(self, row: Row) -> str:
        return str(row["videoID"])

    def stratum(self, row: Row) -> str:
        return str(row["duration"])

    def reported(self, part: str) -> Sequence[str]:
        """Its lengths, where several are asked."""
        return (part,) if len(self.lengths) > 1 else ()

    def videos(self, row: Row) -> Sequence[str]:
        return [f"{folder}{row['videoID']}{end}" for folder in ("data/", "") for end in (".mp4", ".MP4", ".mkv")]

    def options(self, row: Row) -> Sequence[str]:
        return [text.partition(". ")[2].rstrip(".") for text in row["options"]]

    def prompt(self, row: Row, item: Any) -> str:
        options = "\n".join(row["options"])
        return f"{ASKED}\n{row['question']}\n{options}\n{LETTER}"

    def read(self, text: str, sample: Sample) -> str:
        return videomme_letter(text, sample.facts["options"], self.profile)

    def score(self, text: str, sample: Sample) -> float:
        return float(self.read(text, sample) == sample.references[0])

    def references(self, row: Row, item: Any) -> tuple[str, ...]:
        return (row["answer"],)
