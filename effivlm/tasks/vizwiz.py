"""VizWiz-VQA: questions of blind people about their own photographs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from effivlm.data.rows import Row
from effivlm.data.source import Source
from effivlm.metrics.vqa_accuracy import unanswerable, vqa_accuracy
from effivlm.records import Answer, Reported, Sample
from effivlm.tasks._benchmark import SHORT, Benchmark


class Vizwiz(Benchmark):
    """The validation split of VizWiz-VQA (arXiv 1802.08218); papers on token compression mostly report the test server's.

    Licence: CC BY 4.0. Official scorer: VQA accuracy over ten answers, as in lmms-eval's `vizwiz_vqa_val`, with its prompt, which
    tells the model to say that a question cannot be answered. Always saying so scores about 30.
    """

    source: ClassVar[Source] = Source(
        homes=("lmms-lab-encoder/VizWiz-VQA", "lmms-lab/VizWiz-VQA"),
        split="val",
        rows=4319,
        columns={"question_id": "text|int", "question": "text", "image": "image", "answers": "[text]"},
        licence="CC BY 4.0",
    )
    index: ClassVar[tuple[str, ...]] = ("question_id",)
    metric: ClassVar[str] = "vqa_accuracy"
    answer_type: ClassVar[str] = "short"
    profiles: ClassVar[tuple[str, ...]] = ("fixed", "compat")
    max_new_tokens: ClassVar[int] = 32

    def name(self, row: Row, item: Any) -> str:
        return str(row["question_id"])

    def prompt(self, row: Row, item: Any) -> str:
        hint = "\nWhen the provided information is insufficient, respond with 'Unanswerable'."
        return f"{row['question'].capitalize()}{hint}{SHORT}"

    def references(self, row: Row, item: Any) -> tuple[str, ...]:
        return tuple(row["answers"])

    def score(self, text: str, sample: Sample) -> float:
        return vqa_accuracy(text, sample.references, self.profile)

    def parts(self, answers: Sequence[Answer]) -> Mapping[str, Reported]:
        """How many answers say that the picture does not tell, whether that is right or not."""
        said = sum(unanswerable(one.text) for one in answers)
        return {"says unanswerable": Reported(said / len(answers), self.scale, len(answers))} if answers else {}
