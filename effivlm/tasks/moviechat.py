"""MovieChat-1K: open questions about whole films."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from effivlm.data.rows import Row
from effivlm.data.source import Source
from effivlm.tasks._benchmark import numbered
from effivlm.tasks._judged import Judged
from effivlm.tasks._video import Video

INSTRUCTION = (
    "You are able to understand the visual content that the user provides."
    "Follow the instructions carefully and explain your answers in detail."
)


class Moviechat(Video, Judged):
    """The global questions of MovieChat-1K's test videos (arXiv 2307.16449): 170 videos with three questions each.

    Unconfirmed: the paper does not name its video set; its code points here. Licence: the authors', research use. Official
    scorer: a language judge that is retired (gpt-3.5-turbo-0125). The prompt joins its instruction and the question without a
    blank, as lmms-eval's `moviechat_global` does.
    """

    source: ClassVar[Source] = Source(
        homes=("Enxin/lmms_MovieChat_test",),
        configs=("moviechat_global",),
        split="test",
        rows=510,
        columns={"video_name": "text", "question": "text", "answer": "text"},
        files=("*.zip",),
        gigabytes=17.0,
        licence="research use",
    )
    index: ClassVar[tuple[str, ...]] = ("video_name", "question")
    metric: ClassVar[str] = "judge"
    answer_type: ClassVar[str] = "free"
    scoring: ClassVar[str] = "judge"
    rubric: ClassVar[str] = "moviechat"
    max_new_tokens: ClassVar[int] = 256
    group: ClassVar[int] = 2
    comparable: ClassVar[str] = "unconfirmed: the paper does not name its video set"

    def name(self, row: Row, item: Any) -> str:
        return numbered(row, row["question"])

    def together(self, row: Row) -> str:
        return str(row["video_name"])

    def videos(self, row: Row) -> Sequence[str]:
        return [row["video_name"], f"videos/{row['video_name']}"]

    def prompt(self, row: Row, item: Any) -> str:
        return f"{INSTRUCTION}{row['question']}"

    def references(self, row: Row, item: Any) -> tuple[str, ...]:
        return (row["answer"],)
