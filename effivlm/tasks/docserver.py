"""The test questions of DocVQA, whose answers only the competition's server knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from effivlm.data.rows import Row
from effivlm.data.source import Source
from effivlm.records import Answer
from effivlm.tasks.docvqa import Docvqa


class Docserver(Docvqa):
    """The test split of DocVQA (arXiv 2007.00398), the paper's column: answers are stored, and exported for the server.

    Called `docserver`, because `-k docvqa` would select it too. Licence: terms of the Robust Reading Competition, research use.
    Official scorer: ANLS, on rrc.cvc.uab.es alone, in whole numbers; `python -m effivlm export RUN` writes what it takes.
    """

    source: ClassVar[Source] = replace(
        Docvqa.source, split="test", rows=5188, columns={**Docvqa.source.columns, "answers": "[text]?"}
    )
    metric: ClassVar[str] = "anls"
    answer_type: ClassVar[str] = "short"
    max_new_tokens: ClassVar[int] = 32
    group: ClassVar[int] = 2
    elsewhere: ClassVar[str] = "the server of the Robust Reading Competition"
    profiles: ClassVar[tuple[str, ...]] = ("fixed",)
    comparable: ClassVar[str] = "yes, once the server has scored it"

    def references(self, row: Row, item: Any) -> tuple[str, ...]:
        return ()

    def exported(self, answers: Sequence[Answer]) -> list[dict[str, Any]]:
        """What the server takes of a cell's answers: a question's number, and what was answered."""
        return [{"questionId": int(one.id.rpartition("-")[2]), "answer": one.text.strip()} for one in answers]
