"""MM-Vet: open questions that need several abilities at once."""

from __future__ import annotations

from typing import ClassVar

from effivlm.data.source import Source
from effivlm.tasks._judged import Judged
from effivlm.tasks._mmvet import SOURCE, Vet


class Mmvet(Judged, Vet):
    """MM-Vet (arXiv 2308.02490): 218 questions, graded from 0 to 1 by a judge, with the paper's prompt that asks for reasons
    first.

    Licence: data CC BY-NC 4.0, code Apache-2.0. Official scorer: a language judge that is retired (gpt-4-0613); the same
    answers and the same judge gave 50.0 and 42.0 elsewhere. Guessing scores 0.
    """

    source: ClassVar[Source] = SOURCE
    metric: ClassVar[str] = "judge"
    answer_type: ClassVar[str] = "free"
    scoring: ClassVar[str] = "judge"
    rubric: ClassVar[str] = "mmvet"
    max_new_tokens: ClassVar[int] = 1024
    dense: ClassVar[dict[str, float]] = {"llava_onevision": 55.0, "qwen2_vl": 67.4, "internvl2_5": 69.4}
    comparable: ClassVar[str] = "no: the paper's judge is retired"
