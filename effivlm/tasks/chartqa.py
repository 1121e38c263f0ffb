"""ChartQA: questions about charts, by people and by machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from effivlm.data.rows import Row
from effivlm.data.source import Source
from effivlm.metrics.relaxed import relaxed_accuracy
from effivlm.records import Sample
from effivlm.tasks._benchmark import Benchmark, numbered


class Chartqa(Benchmark):
    """The test split of ChartQA (arXiv 2203.10244), 1,250 questions of people and 1,250 augmented ones, which take turns in a
    subset.

    Licence: GPL-3.0. Official scorer: relaxed accuracy (5 % for numbers), as in lmms-eval's `chartqa`. Guessing scores about 0.
    """

    source: ClassVar[Source] = Source(
        homes=("lmms-lab-encoder/ChartQA", "lmms-lab/ChartQA"),
        split="test",
        rows=2500,
        columns={"question": "text", "answer": "text", "type": "text", "image": "image"},
        licence="GPL-3.0",
    )
    index: ClassVar[tuple[str, ...]] = ("question", "type")
    metric: ClassVar[str] = "relaxed_accuracy"
    answer_type: ClassVar[str] = "number"
    profiles: ClassVar[tuple[str, ...]] = ("fixed", "compat")
    max_new_tokens: ClassVar[int] = 16
    dense: ClassVar[dict[str, float]] = {"llava_onevision": 80.0, "qwen2_vl": 81.56, "internvl2_5": 88.04}
    comparable: ClassVar[str] = "yes"

    def name(self, row: Row, item: Any) -> str:
        return numbered(row, row["question"])

    def stratum(self, row: Row) -> str:
        return str(row["type"])

    def reported(self, part: str) -> Sequence[str]:
        return (part.removesuffix("_test"),)

    def prompt(self, row: Row, item: Any) -> str:
        return f"{row['question']}\nAnswer the question with a single word."

    def references(self, row: Row, item: Any) -> tuple[str, ...]:
        return (row["answer"],)

    def score(self, text: str, sample: Sample) -> float:
        return relaxed_accuracy(text, sample.references, self.profile)
