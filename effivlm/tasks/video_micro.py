"""Short videos: what moved where, and in which order."""

from __future__ import annotations

from typing import ClassVar

from effivlm.metrics.exact import exact_match
from effivlm.records import Sample
from effivlm.tasks._micro import Micro


class VideoMicro(Micro):
    """Seeing over time: the frames of one clip, and a question that no single frame answers.

    Stands for question answering over short videos with short answers; no large set has this very form, since most of those are
    multiple choice or judged. Scored as GQA is: exact match without case and punctuation.
    """

    metric: ClassVar[str] = "exact_match"
    answer_type: ClassVar[str] = "short"
    scale: ClassVar[float] = 100.0
    max_new_tokens: ClassVar[int] = 32
    version: ClassVar[int] = 1
    instruction: ClassVar[str] = "\nAnswer the question using a single word or phrase."

    def score(self, text: str, sample: Sample) -> float:
        return exact_match(text, sample.references)
