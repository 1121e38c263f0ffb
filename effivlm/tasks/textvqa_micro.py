"""A stand-in of TextVQA: words on signs in a cluttered scene."""

from __future__ import annotations

from typing import ClassVar

from effivlm.metrics.vqa_accuracy import vqa_accuracy
from effivlm.records import Sample
from effivlm.tasks._micro import Micro


class TextvqaMicro(Micro):
    """Words in a scene: the question names a sign by its looks or place, the answer is what it says.

    Stands for TextVQA (arXiv 1904.08920) with its prompt, its ten references to a question and its metric. Official scorer: VQA
    accuracy, as in lmms-eval's `textvqa` task, without OCR tokens in the prompt.
    """

    metric: ClassVar[str] = "vqa_accuracy"
    answer_type: ClassVar[str] = "short"
    scale: ClassVar[float] = 100.0
    max_new_tokens: ClassVar[int] = 32
    version: ClassVar[int] = 1
    instruction: ClassVar[str] = "\nAnswer the question using a single word or phrase."

    def score(self, text: str, sample: Sample) -> float:
        return vqa_accuracy(text, sample.references)
