"""A proxy of MM-Vet without a judge: how much of the reference an answer holds. Never reported as MM-Vet's score."""

from __future__ import annotations

from typing import ClassVar

from effivlm.data.source import Source
from effivlm.metrics.mmvet import mmvet_proxy
from effivlm.records import Sample
from effivlm.tasks._mmvet import SOURCE, Vet


class MmvetProxy(Vet):
    """MM-Vet's questions (arXiv 2308.02490), scored by the elements of the reference that stand in the answer: an own definition.

    Licence: data CC BY-NC 4.0. There is no official scorer of this kind; it says what compression changes, not how good a model
    is.
    """

    source: ClassVar[Source] = SOURCE
    metric: ClassVar[str] = "reference_elements"
    answer_type: ClassVar[str] = "free"
    scoring: ClassVar[str] = "proxy"
    max_new_tokens: ClassVar[int] = 1024

    def score(self, text: str, sample: Sample) -> float:
        return mmvet_proxy(text, sample.references[0], sample.facts["capability"])
