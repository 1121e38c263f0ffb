"""DocVQA: reading industry documents, one page at a time."""

from __future__ import annotations

from typing import Any, ClassVar

from effivlm.data.rows import Row
from effivlm.data.source import Source
from effivlm.metrics.anls import anls
from effivlm.records import Sample
from effivlm.tasks._benchmark import SHORT, Benchmark


class Docvqa(Benchmark):
    """The validation split of DocVQA (arXiv 2007.00398), whose answers are public; the paper's column is the test server's.

    Licence: terms of the Robust Reading Competition, research use. Official scorer: ANLS with threshold 0.5 (rrc.cvc.uab.es), as
    in lmms-eval's `docvqa_val`. Guessing scores about 0.
    """

    source: ClassVar[Source] = Source(
        homes=("lmms-lab-encoder/DocVQA", "lmms-lab/DocVQA"),
        configs=("DocVQA",),
        split="validation",
        rows=5349,
        columns={
            "questionId": "text|int",
            "question": "text",
            "docId": "int|text",
            "image": "image",
            "answers": "[text]",
        },
        licence="RRC terms, research use",
    )
    index: ClassVar[tuple[str, ...]] = ("questionId", "docId")
    metric: ClassVar[str] = "anls"
    answer_type: ClassVar[str] = "short"
    profiles: ClassVar[tuple[str, ...]] = ("fixed", "compat")
    max_new_tokens: ClassVar[int] = 32
    group: ClassVar[int] = 2
    dense: ClassVar[dict[str, float]] = {"llava_onevision": 87.0, "qwen2_vl": 95.0, "internvl2_5": 94.0}
    comparable: ClassVar[str] = "no: the paper has the test split's, in whole numbers"

    def name(self, row: Row, item: Any) -> str:
        return str(row["questionId"])

    def together(self, row: Row) -> str:
        return str(row["docId"])

    def prompt(self, row: Row, item: Any) -> str:
        return f"{row['question']}{SHORT}"

    def references(self, row: Row, item: Any) -> tuple[str, ...]:
        return tuple(row["answers"])

    def score(self, text: str, sample: Sample) -> float:
        return anls(text, sample.references, self.profile)
