"""RealWorldQA: questions about what a car or a person sees, with and without options."""

from __future__ import annotations

from typing import Any, ClassVar

from effivlm.data.rows import Row
from effivlm.data.source import Source
from effivlm.metrics import validity
from effivlm.metrics.choice import LETTERS, listed_options
from effivlm.metrics.realworldqa import realworldqa
from effivlm.records import Sample
from effivlm.tasks._benchmark import Benchmark, numbered


class Realworldqa(Benchmark):
    """RealWorldQA (x.ai, Grok-1.5 Vision): 765 questions that hold their options and their instruction.

    Licence: CC BY-ND 4.0, so pictures are loaded and never stored elsewhere. Official scorer: exact match after number words and
    option texts are mapped, as in lmms-eval's `realworldqa` (`metrics/realworldqa.py`). Guessing scores about 35 (two to four
    options, and counts).
    """

    source: ClassVar[Source] = Source(
        homes=("lmms-lab-encoder/RealWorldQA", "lmms-lab/RealWorldQA"),
        split="test",
        rows=765,
        columns={"question": "text", "answer": "text", "image": "image"},
        gigabytes=0.678,
        licence="CC BY-ND 4.0",
    )
    index: ClassVar[tuple[str, ...]] = ("question",)
    metric: ClassVar[str] = "accuracy"
    answer_type: ClassVar[str] = "choice"
    profiles: ClassVar[tuple[str, ...]] = ("fixed", "compat")
    max_new_tokens: ClassVar[int] = 16
    chance: ClassVar[float] = 35.0
    dense: ClassVar[dict[str, float]] = {"llava_onevision": 65.88, "qwen2_vl": 66.53, "internvl2_5": 72.41}
    comparable: ClassVar[str] = "yes, where answers are letters or numbers"

    def name(self, row: Row, item: Any) -> str:
        return numbered(row, row["question"])

    def prompt(self, row: Row, item: Any) -> str:
        return str(row["question"])

    def references(self, row: Row, item: Any) -> tuple[str, ...]:
        return (row["answer"],)

    def score(self, text: str, sample: Sample) -> float:
        return realworldqa(text, sample.references, sample.prompt, self.profile)

    def invalid(self, text: str, sample: Sample) -> bool:
        """Where the answer is no letter, one that is not blank says something."""
        lettered = all(one.strip().upper() in LETTERS for one in sample.references)
        return validity.invalid("choice", text, listed_options(sample.prompt) or None) if lettered else not text.strip()
