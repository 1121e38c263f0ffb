"""A stand-in of DocVQA: one field of a rendered form, receipt or letter."""

from __future__ import annotations

from typing import ClassVar

from effivlm.metrics.anls import anls
from effivlm.records import Sample
from effivlm.tasks._micro import Micro


class DocvqaMicro(Micro):
    """Reading and finding: the question names a label, the answer is the value beside it.

    Stands for DocVQA (arXiv 2007.00398) with its prompt and its metric. Official scorer: ANLS with threshold 0.5, as in
    lmms-eval's `docvqa` task.
    """

    metric: ClassVar[str] = "anls"
    answer_type: ClassVar[str] = "short"
    scale: ClassVar[float] = 100.0
    max_new_tokens: ClassVar[int] = 28
    version: ClassVar[int] = 2
    instruction: ClassVar[str] = "\nAnswer the question using a single word or phrase."

    def score(self, text: str, sample: Sample) -> float:
        return anls(text, sample.references)
