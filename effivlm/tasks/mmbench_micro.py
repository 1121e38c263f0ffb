"""A stand-in of MMBench: multiple choice, asked once for each rotation of the options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from effivlm.metrics.choice import letter, listed_options
from effivlm.metrics.circular import circular
from effivlm.records import Sample
from effivlm.tasks._base import Scores, by_group
from effivlm.tasks._micro import Micro


class MmbenchMicro(Micro):
    """Choosing by letter: right only if all four rotations of the options are answered right.

    Stands for MMBench (arXiv 2307.06281) with its prompt and its CircularEval. Official scorer: as in lmms-eval's
    `mmbench_en` task, but the letter is found by `metrics/choice.py`, and an answer that names no option is wrong where the
    official one asks a judge.
    """

    metric: ClassVar[str] = "circular"
    answer_type: ClassVar[str] = "choice"
    scale: ClassVar[float] = 100.0
    max_new_tokens: ClassVar[int] = 12
    version: ClassVar[int] = 1
    group: ClassVar[int] = 4
    instruction: ClassVar[str] = "\nAnswer with the option's letter from the given choices directly."

    def score(self, text: str, sample: Sample) -> float:
        found = letter(text, options=listed_options(sample.prompt))
        return float(found == sample.references[0])

    def extract(self, text: str) -> str:
        return letter(text, "ABCD") or text.strip()

    def settle(self, ids: Sequence[str], scores: Scores) -> list[float | None]:
        return by_group(ids, scores, self.group, circular)
