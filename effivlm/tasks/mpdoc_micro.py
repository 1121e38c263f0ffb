"""A stand-in of MP-DocVQA: one field in a document of several pages."""

from __future__ import annotations

from typing import ClassVar

from effivlm.metrics.anls import anls_pages
from effivlm.records import Sample
from effivlm.tasks._micro import Micro


class MpdocMicro(Micro):
    """Reading and finding over pages: 2 to 4 pictures, and the value that is asked for stands on one of them.

    Stands for MP-DocVQA (arXiv 2212.05935) with its prompt and its metric. Official scorer: its variant of ANLS, as in
    lmms-eval's `multidocvqa` task.
    """

    metric: ClassVar[str] = "anls_pages"
    answer_type: ClassVar[str] = "short"
    scale: ClassVar[float] = 100.0
    max_new_tokens: ClassVar[int] = 28
    version: ClassVar[int] = 1
    instruction: ClassVar[str] = "\nAnswer the question using a single word or phrase."

    def score(self, text: str, sample: Sample) -> float:
        return anls_pages(text, sample.references)
