"""LongVideoBench: multiple choice over videos of eight seconds to an hour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from effivlm.data.rows import Row
from effivlm.data.source import Source
from effivlm.metrics.videomme import longvideobench_letter
from effivlm.records import Sample
from effivlm.tasks._benchmark import LETTER, LETTERS, listed
from effivlm.tasks._video import VideoChoice


class Longvideobench(VideoChoice):
    """The validation split of LongVideoBench (arXiv 2407.15754), without subtitles between the frames.

    Licence: CC BY-NC-SA 4.0, given to accepted accounts. Its videos are published as parts of one tar file, which must be joined
    and unpacked in the set's folder. Official scorer: the letter, as in lmms-eval's `longvideobench_val_v`
    (`metrics/videomme.py`). Guessing scores about 23 (four or five options).
    """

    source: ClassVar[Source] = Source(
        homes=("longvideobench/LongVideoBench",),
        split="validation",
        rows=1337,
        columns={
            "id": "text",
            "video_id": "text",
            "video_path": "text",
            "question": "text",
            **{f"option{number}": "text?" for number in range(5)},
            "correct_choice": "int",
        },
        files=("videos.tar.part.*",),
        licence="CC BY-NC-SA 4.0",
    )
    index: ClassVar[tuple[str, ...]] = ("id", "video_id")
    metric: ClassVar[str] = "accuracy"
    answer_type: ClassVar[str] = "choice"
    profiles: ClassVar[tuple[str, ...]] = ("fixed", "compat")
    max_new_tokens: ClassVar[int] = 32
    group: ClassVar[int] = 2
    chance: ClassVar[float] = 23.0

    def name(self, row: Row, item: Any) -> str:
        return str(row["id"])

    def together(self, row: Row) -> str:
        return str(row["video_id"])

    def videos(self, row: Row) -> Sequence[str]:
        return [f"videos/{row['video_path']}", row["video_path"]]

    def options(self, row: Row) -> Sequence[str]:
        given = [row[f"option{number}"] for number in range(5)]
        return [text for text in given if text and text != "N/A"]

    def prompt(self, row: Row, item: Any) -> str:
        return f"{row['question']}\n{listed(self.options(row))}{LETTER}\n"

    def read(self, text: str, sample: Sample) -> str:
        return longvideobench_letter(text, sample.facts["options"], self.profile)

    def score(self, text: str, sample: Sample) -> float:
        return float(self.read(text, sample) == sample.references[0])

    def references(self, row: Row, item: Any) -> tuple[str, ...]:
        return (LETTERS[row["correct_choice"]],)
