"""A stand-in of ImageDC: a long answer, line by line what is in the picture."""

from __future__ import annotations

from typing import ClassVar

from effivlm.metrics.lines import line_f1
from effivlm.records import Sample
from effivlm.tasks._micro import Micro


class ImagedcMicro(Micro):
    """Long output: describe or read the whole picture, one line a thing.

    Stands for ImageDC (lmms-lab/DC100_EN), whose prompt is the question alone. The official scorer is a judge model; here line F1
    takes its place, an own definition that needs none, so scores of the two cannot be compared.
    """

    metric: ClassVar[str] = "line_f1"
    answer_type: ClassVar[str] = "free"
    scale: ClassVar[float] = 100.0
    max_new_tokens: ClassVar[int] = 256
    version: ClassVar[int] = 1
    instruction: ClassVar[str] = ""

    def score(self, text: str, sample: Sample) -> float:
        return line_f1(text, sample.references)
