"""A stand-in of MME: two yes-or-no questions about each picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from effivlm.metrics.mme import pair, yes_no
from effivlm.records import Sample
from effivlm.tasks._base import Scores, by_group
from effivlm.tasks._micro import Micro


class MmeImageMicro(Micro):
    """Yes or no, in pairs: of two questions about a picture one is right to affirm and one to deny.

    Stands for MME (arXiv 2306.13394) with its prompt and its metric. Official scorer: accuracy + accuracy-plus, as in lmms-eval's
    `mme` task; a category gives up to 200, and the scale here is that of five. It is the mean over pairs, MME's sum over
    categories where each has as many pairs.
    """

    metric: ClassVar[str] = "accuracy_and_plus"
    answer_type: ClassVar[str] = "yes_no"
    scale: ClassVar[float] = 1000.0
    max_new_tokens: ClassVar[int] = 12
    version: ClassVar[int] = 1
    group: ClassVar[int] = 2
    instruction: ClassVar[str] = "\nAnswer the question using a single word or phrase."

    def score(self, text: str, sample: Sample) -> float:
        return float(yes_no(text) == sample.references[0].lower())

    def extract(self, text: str) -> str:
        return yes_no(text)

    def settle(self, ids: Sequence[str], scores: Scores) -> list[float | None]:
        return by_group(ids, scores, self.group, pair)
