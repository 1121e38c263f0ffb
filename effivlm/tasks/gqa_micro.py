"""A stand-in of GQA: things in a rendered scene, their looks and their places."""

from __future__ import annotations

from typing import ClassVar

from effivlm.metrics.exact import exact_match
from effivlm.records import Sample
from effivlm.tasks._micro import Micro


class GqaMicro(Micro):
    """Seeing: what, which colour, how many, where.

    Stands for GQA (arXiv 1902.09506) with its prompt and its metric. Official scorer: exact match without case and
    punctuation, as in lmms-eval's `gqa` task.
    """

    metric: ClassVar[str] = "exact_match"
    answer_type: ClassVar[str] = "short"
    scale: ClassVar[float] = 100.0
    max_new_tokens: ClassVar[int] = 32
    version: ClassVar[int] = 1
    instruction: ClassVar[str] = "\nAnswer the question using a single word or phrase."

    def score(self, text: str, sample: Sample) -> float:
        return exact_match(text, sample.references)
