"""A stand-in of DocVQA: one field of a rendered form, receipt or letter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from effivlm.metrics.anls import anls
from effivlm.records import Sample
from effivlm.tasks._base import Lazy, Task


class DocvqaMicro(Task):
    """Reading and finding: the question names a label, the answer is the value beside it.

    Stands for DocVQA (arXiv 2007.00398) with its prompt and its metric; never reported as its score. Pages are rendered from
    seeds with fonts, words and layouts that the micro models were not trained on. Source and licence: effivlm_micro, Apache-2.0
    (fonts under their own free licences). Official scorer: ANLS with threshold 0.5, as in lmms-eval's `docvqa` task.
    """

    metric: ClassVar[str] = "anls"
    answer_type: ClassVar[str] = "short"
    scale: ClassVar[float] = 100.0
    max_new_tokens: ClassVar[int] = 32
    version: ClassVar[int] = 1
    instruction: ClassVar[str] = "\nAnswer the question using a single word or phrase."

    def samples(self, limit: int, seed: int) -> Sequence[Sample]:
        from effivlm_micro import pages

        rows = pages.samples(limit, seed)

        def make(index: int) -> Sample:
            name, image, question, references = rows[index]
            return Sample(name, question + self.instruction, tuple(references), images=(image,))

        return Lazy(len(rows), make)

    def score(self, text: str, sample: Sample) -> float:
        return anls(text.strip(), sample.references)
