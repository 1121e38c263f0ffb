"""A stand-in of OCRBench: what is written in a small picture."""

from __future__ import annotations

from typing import ClassVar

from effivlm.metrics.contains import contains
from effivlm.records import Sample
from effivlm.tasks._micro import Micro


class OcrbenchMicro(Micro):
    """Recognising text: the answer must contain what is written.

    Stands for OCRBench (arXiv 2305.07895), whose prompt is the question alone, with its metric. Official scorer: the
    reference is a part of the answer, case aside, as in lmms-eval's `ocrbench` task.
    """

    metric: ClassVar[str] = "contains"
    answer_type: ClassVar[str] = "ocr"
    scale: ClassVar[float] = 1000.0
    max_new_tokens: ClassVar[int] = 40
    version: ClassVar[int] = 1
    instruction: ClassVar[str] = ""

    def score(self, text: str, sample: Sample) -> float:
        return contains(text, sample.references)
