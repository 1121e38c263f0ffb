"""MMStar: multiple choice that cannot be answered without the picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from effivlm.data.rows import Row
from effivlm.data.source import Source
from effivlm.metrics.choice import listed_options
from effivlm.metrics.mmstar import mmstar
from effivlm.records import Sample
from effivlm.tasks._benchmark import LETTER, Choice, by_part


class Mmstar(Choice):
    """MMStar (arXiv 2403.20330): 1,500 questions in 18 fields of equal size; the score is the mean over fields.

    Licence: none is stated. Official scorer: the letter, as in lmms-eval's `mmstar` (`metrics/mmstar.py`).
    The options stand inside the question. Guessing scores 24.6.
    """

    source: ClassVar[Source] = Source(
        homes=("Lin-Chen/MMStar",),
        split="val",
        rows=1500,
        columns={
            "index": "int",
            "question": "text",
            "answer": "text",
            "category": "text",
            "l2_category": "text",
            "image": "image",
        },
        licence="none stated",
    )
    index: ClassVar[tuple[str, ...]] = ("index", "category", "l2_category")
    metric: ClassVar[str] = "accuracy_by_field"
    answer_type: ClassVar[str] = "choice"
    profiles: ClassVar[tuple[str, ...]] = ("fixed", "compat")
    max_new_tokens: ClassVar[int] = 128
    chance: ClassVar[float] = 24.6
    dense: ClassVar[dict[str, float]] = {"llava_onevision": 58.75, "qwen2_vl": 57.11, "internvl2_5": 69.8}
    comparable: ClassVar[str] = "yes, where answers begin with their letter"
    average: ClassVar[str] = "parts"

    def name(self, row: Row, item: Any) -> str:
        return str(row["index"])

    def stratum(self, row: Row) -> str:
        return f"{row['category']}/{row['l2_category']}"

    def reported(self, part: str) -> Sequence[str]:
        """Its six categories, of three fields each."""
        return (part.partition("/")[0],)

    def options(self, row: Row) -> Sequence[str]:
        return list(listed_options(row["question"]).values())

    def facts(self, row: Row, item: Any) -> dict[str, Any]:
        found = super().facts(row, item)
        return found if found["options"] else {"options": dict.fromkeys("ABCD", "")}

    def prompt(self, row: Row, item: Any) -> str:
        return f"{row['question']}{LETTER.removesuffix('.')}"

    def score(self, text: str, sample: Sample) -> float:
        return mmstar(text, sample.references, sample.facts["options"], self.profile)

    def references(self, row: Row, item: Any) -> tuple[str, ...]:
        return (row["answer"],)

    def overall(self, ids: Sequence[str], scores: Sequence[float]) -> float:
        return by_part(self.known, ids, scores, self.stratum)
