"""LLaVA-Bench-Wilder: open questions about pictures from the wild, beside a reference answer."""

from __future__ import annotations

from typing import Any, ClassVar

from effivlm.data.rows import Row
from effivlm.data.source import Source
from effivlm.tasks._benchmark import numbered
from effivlm.tasks._judged import Judged


class LlavaWilder(Judged):
    """The small set of LLaVA-Bench-Wilder: 128 open questions; the score is the judge's points for the answers over those for the
    references.

    Licence: none is stated. Official scorer: a vision-language judge that is retired (gpt-4-vision-preview). Collapsed models
    score 10 to 20.
    """

    source: ClassVar[Source] = Source(
        homes=("lmms-lab-encoder/LLaVA-Bench-Wilder", "lmms-lab/LLaVA-Bench-Wilder"),
        split="test",
        rows=128,
        columns={"Question": "text", "Answer": "text", "image": "image"},
        licence="none stated",
    )
    index: ClassVar[tuple[str, ...]] = ("Question",)
    metric: ClassVar[str] = "judge"
    answer_type: ClassVar[str] = "free"
    scoring: ClassVar[str] = "judge"
    rubric: ClassVar[str] = "wilder"
    max_new_tokens: ClassVar[int] = 4096
    chance: ClassVar[float] = 10.0
    dense: ClassVar[dict[str, float]] = {"llava_onevision": 71.4, "qwen2_vl": 72.7, "internvl2_5": 74.8}
    comparable: ClassVar[str] = "no: the paper's judge is retired"

    def name(self, row: Row, item: Any) -> str:
        return numbered(row, row["Question"])

    def prompt(self, row: Row, item: Any) -> str:
        return str(row["Question"])

    def references(self, row: Row, item: Any) -> tuple[str, ...]:
        return (row["Answer"],)
