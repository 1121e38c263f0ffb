"""MP-DocVQA: a question about a document of up to twenty pages."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from effivlm.data.rows import Row
from effivlm.data.source import Source
from effivlm.metrics.anls import accuracy_pages, anls_pages
from effivlm.records import Answer, Reported, Sample
from effivlm.tasks._benchmark import SHORT, Benchmark

PAGES = tuple(f"image_{number}" for number in range(1, 21))


class Mpdoc(Benchmark):
    """The validation split of MP-DocVQA (arXiv 2212.05935): all pages of a document, in order.

    Called `mpdoc`, because `-k docvqa` would select it too. Licence: terms of the Robust Reading Competition. Official scorer:
    ANLS in the variant of its own framework, as in lmms-eval's `multidocvqa_val`. Guessing scores about 0. Twenty A4 pages in
    seven tiles each are longer than InternVL's 32,768 positions; its adapter takes fewer tiles a page then.
    """

    source: ClassVar[Source] = Source(
        homes=("lmms-lab-encoder/MP-DocVQA", "lmms-lab/MP-DocVQA"),
        split="val",
        columns={
            "questionId": "text|int",
            "doc_id": "text",
            "question": "text",
            "answers": "text",
            **dict.fromkeys(PAGES, "image?"),
        },
        licence="RRC terms, research use",
    )
    index: ClassVar[tuple[str, ...]] = ("questionId", "doc_id", "answers")
    metric: ClassVar[str] = "anls"
    answer_type: ClassVar[str] = "short"
    profiles: ClassVar[tuple[str, ...]] = ("fixed", "compat")
    max_new_tokens: ClassVar[int] = 32
    group: ClassVar[int] = 2
    comparable: ClassVar[str] = "the paper prints no number of it"

    def name(self, row: Row, item: Any) -> str:
        return str(row["questionId"])

    def together(self, row: Row) -> str:
        return str(row["doc_id"])

    def prompt(self, row: Row, item: Any) -> str:
        return f"{row['question']}{SHORT}"

    def references(self, row: Row, item: Any) -> tuple[str, ...]:
        return tuple(str(one) for one in ast.literal_eval(row["answers"]))

    def images(self, row: Row) -> Sequence[Any]:
        return [row[page] for page in PAGES if row[page] is not None]

    def score(self, text: str, sample: Sample) -> float:
        return anls_pages(text, sample.references, self.profile)

    def parts(self, answers: Sequence[Answer]) -> Mapping[str, Reported]:
        """Its second score, the share of answers that are a reference."""
        rights = [accuracy_pages(one.text, self.references(self.known[one.id], None), self.profile) for one in answers]
        return {"accuracy": Reported(sum(rights) / len(rights), self.scale, len(rights))} if rights else {}
