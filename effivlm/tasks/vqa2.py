"""VQAv2: questions about everyday photographs."""

from __future__ import annotations

from typing import Any, ClassVar

from effivlm.data.rows import Row
from effivlm.data.source import Source
from effivlm.metrics.vqa_accuracy import vqav2_accuracy
from effivlm.records import Sample
from effivlm.tasks._benchmark import SHORT, Benchmark


class Vqa2(Benchmark):
    """The validation split of VQAv2 (arXiv 1612.00837), whose answers are public; papers mostly report the test-dev server's.

    Called `vqa2`, because the name with a v would hold the word of a preset. Licence: CC BY 4.0. Official scorer: VQA accuracy
    over ten answers, as in lmms-eval's `vqav2_val`. The most frequent answer ("yes") scores about 25.
    """

    source: ClassVar[Source] = Source(
        homes=("lmms-lab-encoder/VQAv2", "lmms-lab/VQAv2"),
        split="validation",
        rows=214354,
        columns={"question_id": "int", "image_id": "int", "question": "text", "image": "image", "answers": "[any]"},
        licence="CC BY 4.0",
    )
    index: ClassVar[tuple[str, ...]] = ("question_id", "image_id")
    metric: ClassVar[str] = "vqa_accuracy"
    answer_type: ClassVar[str] = "short"
    profiles: ClassVar[tuple[str, ...]] = ("fixed", "compat")
    max_new_tokens: ClassVar[int] = 16
    group: ClassVar[int] = 2

    def name(self, row: Row, item: Any) -> str:
        return str(row["question_id"])

    def together(self, row: Row) -> str:
        return str(row["image_id"])

    def prompt(self, row: Row, item: Any) -> str:
        return f"{row['question']}{SHORT}"

    def references(self, row: Row, item: Any) -> tuple[str, ...]:
        return tuple(one["answer"] for one in row["answers"])

    def score(self, text: str, sample: Sample) -> float:
        return vqav2_accuracy(text, sample.references, self.profile)
