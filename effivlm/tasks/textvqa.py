"""TextVQA: questions about text in photographs."""

from __future__ import annotations

from typing import Any, ClassVar

from effivlm.data.rows import Row
from effivlm.data.source import Source
from effivlm.metrics.vqa_accuracy import vqa_accuracy
from effivlm.records import Sample
from effivlm.tasks._benchmark import SHORT, Benchmark


class Textvqa(Benchmark):
    """The validation split of TextVQA (arXiv 1904.08920), without the OCR tokens that some harnesses put into the prompt.

    Licence: CC BY 4.0. Official scorer: VQA accuracy over ten answers, as in lmms-eval's `textvqa_val`. The prompt has the
    question with its first letter alone in capitals, as there. Guessing scores about 0.
    """

    source: ClassVar[Source] = Source(
        homes=("lmms-lab-encoder/textvqa", "lmms-lab/textvqa"),
        split="validation",
        rows=5000,
        columns={"question_id": "int", "image_id": "text", "question": "text", "image": "image", "answers": "[text]"},
        licence="CC BY 4.0",
    )
    index: ClassVar[tuple[str, ...]] = ("question_id", "image_id")
    metric: ClassVar[str] = "vqa_accuracy"
    answer_type: ClassVar[str] = "short"
    profiles: ClassVar[tuple[str, ...]] = ("fixed", "compat")
    max_new_tokens: ClassVar[int] = 32
    group: ClassVar[int] = 2
    dense: ClassVar[dict[str, float]] = {"llava_onevision": 74.79, "qwen2_vl": 81.82, "internvl2_5": 82.87}
    comparable: ClassVar[str] = "yes"

    def name(self, row: Row, item: Any) -> str:
        return str(row["question_id"])

    def together(self, row: Row) -> str:
        return str(row["image_id"])

    def prompt(self, row: Row, item: Any) -> str:
        return f"{row['question'].capitalize()}{SHORT}"

    def references(self, row: Row, item: Any) -> tuple[str, ...]:
        return tuple(row["answers"])

    def score(self, text: str, sample: Sample) -> float:
        return vqa_accuracy(text, sample.references, self.profile)
