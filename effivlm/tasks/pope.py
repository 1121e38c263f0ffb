"""POPE: is an object in the picture, or only likely to be there?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from effivlm.data.rows import Row
from effivlm.data.source import Source
from effivlm.metrics.pope import pope, pope_answer
from effivlm.records import Answer, Reported, Sample
from effivlm.tasks._benchmark import SHORT, Benchmark


class Pope(Benchmark):
    """POPE (arXiv 2305.10355): 500 pictures with 18 questions each, half of them about objects that are not there.

    Licence: MIT; pictures of COCO. The score is accuracy, lmms-eval's `pope_accuracy`; many papers print F1 instead, which lies
    within a point or two of it for models that answer both ways. Guessing and constant answers score 50.
    """

    source: ClassVar[Source] = Source(
        homes=("lmms-lab-encoder/POPE", "lmms-lab/POPE"),
        split="test",
        rows=9000,
        columns={
            "question_id": "text|int",
            "question": "text",
            "answer": "text",
            "image_source": "text",
            "category": "text",
            "image": "image",
        },
        licence="MIT; pictures of COCO",
    )
    index: ClassVar[tuple[str, ...]] = ("image_source", "answer", "category")
    metric: ClassVar[str] = "accuracy"
    answer_type: ClassVar[str] = "yes_no"
    profiles: ClassVar[tuple[str, ...]] = ("fixed", "compat")
    max_new_tokens: ClassVar[int] = 16
    group: ClassVar[int] = 2
    chance: ClassVar[float] = 50.0

    def together(self, row: Row) -> str:
        return str(row["image_source"])

    def prompt(self, row: Row, item: Any) -> str:
        return f"{row['question'].strip()}{SHORT}"

    def references(self, row: Row, item: Any) -> tuple[str, ...]:
        return (row["answer"].strip().lower(),)

    def score(self, text: str, sample: Sample) -> float:
        return pope([text], sample.references, self.profile).accuracy

    def extract(self, text: str) -> str:
        return pope_answer(text, self.profile)

    def invalid(self, text: str, sample: Sample) -> bool:
        return not pope_answer(text)

    def counts_in(self, row: Row) -> str:
        return str(row["category"])

    def reported(self, part: str) -> Sequence[str]:
        return (part,)

    def parts(self, answers: Sequence[Answer]) -> Mapping[str, Reported]:
        """Accuracy by category, and POPE's other figures of all answers."""
        wanted = [str(self.known[one.id]["answer"]) for one in answers]
        found = pope([one.text for one in answers], wanted, self.profile)
        others = {"F1": found.f1, "precision": found.precision, "recall": found.recall, "yes ratio": found.yes_ratio}
        return {
            **super().parts(answers),
            **{name: Reported(value, self.scale, len(answers)) for name, value in others.items()},
        }
