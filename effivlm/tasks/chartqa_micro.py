"""A stand-in of ChartQA: values and comparisons read off a rendered chart."""

from __future__ import annotations

from typing import ClassVar

from effivlm.metrics.relaxed import relaxed_accuracy
from effivlm.records import Sample
from effivlm.tasks._micro import Micro


class ChartqaMicro(Micro):
    """Reading a chart: a value, an extreme, a comparison.

    Stands for ChartQA (arXiv 2203.10244) with its prompt and its metric. Official scorer: relaxed accuracy with tolerance 5 %,
    as in lmms-eval's `chartqa` task.
    """

    metric: ClassVar[str] = "relaxed_accuracy"
    answer_type: ClassVar[str] = "number"
    scale: ClassVar[float] = 100.0
    max_new_tokens: ClassVar[int] = 32
    version: ClassVar[int] = 1
    instruction: ClassVar[str] = "\nAnswer the question with a single word."

    def score(self, text: str, sample: Sample) -> float:
        return relaxed_accuracy(text, sample.references)
