"""InfographicVQA: reading and reckoning over infographics."""

from __future__ import annotations

from typing import Any, ClassVar

from effivlm.data.rows import Row
from effivlm.data.source import Source
from effivlm.metrics.anls import anls
from effivlm.records import Sample
from effivlm.tasks._benchmark import SHORT, Benchmark


class Infovqa(Benchmark):
    """The validation split of InfographicVQA (arXiv 2104.12756): tall pictures with small text, which compression breaks first.

    Licence: terms of the Robust Reading Competition, research use. Official scorer: ANLS with threshold 0.5, as in lmms-eval's
    `infovqa_val`. Guessing scores about 0.
    """

    source: ClassVar[Source] = Source(
        homes=("lmms-lab-encoder/DocVQA", "lmms-lab/DocVQA"),
        configs=("InfographicVQA",),
        split="validation",
        rows=2801,
        columns={
            "questionId": "text|int",
            "question": "text",
            "image_url": "text",
            "image": "image",
            "answers": "[text]",
        },
        licence="RRC terms, research use",
    )
    index: ClassVar[tuple[str, ...]] = ("questionId", "image_url")
    metric: ClassVar[str] = "anls"
    answer_type: ClassVar[str] = "short"
    profiles: ClassVar[tuple[str, ...]] = ("fixed", "compat")
    max_new_tokens: ClassVar[int] = 32
    group: ClassVar[int] = 2

    def name(self, row: Row, item: Any) -> str:
        return str(row["questionId"])

    def together(self, row: Row) -> str:
        return str(row["image_url"]).rpartition("/")[2]

    def prompt(self, row: Row, item: Any) -> str:
        return f"{row['question']}{SHORT}"

    def references(self, row: Row, item: Any) -> tuple[str, ...]:
        return tuple(row["answers"])

    def score(self, text: str, sample: Sample) -> float:
        return anls(text, sample.references, self.profile)
