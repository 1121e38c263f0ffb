"""MMMU: college questions over thirty subjects, with up to seven pictures between pieces of text."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from typing import Any, ClassVar

from effivlm.data.pictures import picture
from effivlm.data.rows import Row
from effivlm.data.source import Source
from effivlm.metrics.mmmu import DISCIPLINES, mmmu_choice, mmmu_invalid, mmmu_letter, mmmu_open
from effivlm.records import Sample
from effivlm.tasks._benchmark import LETTER, SHORT, Benchmark, listed

PICTURES = tuple(f"image_{number}" for number in range(1, 8))
MARK = re.compile(r"<image (\d)>")


class Mmmu(Benchmark):
    """The validation split of MMMU (arXiv 2311.16502): 847 multiple-choice and 53 open questions.

    Licence: Apache-2.0. Official scorer: that of MMMU's own code for open questions; the official code draws a letter at
    random if it finds none, and so gives a quarter of unreadable answers a point; here such an answer is invalid.
    A picture stands in the place of its first mention ("<image 1>"), as the official code has it; the paper shows all of them
    in front and leaves the mentions. Guessing scores 22.1, the most frequent letter 26.8.
    """

    source: ClassVar[Source] = Source(
        homes=("lmms-lab-encoder/MMMU", "lmms-lab/MMMU"),
        split="validation",
        rows=900,
        columns={
            "id": "text",
            "question": "text",
            "options": "text",
            "question_type": "text",
            "answer": "text",
            **dict.fromkeys(PICTURES, "image?"),
        },
        licence="Apache-2.0",
    )
    index: ClassVar[tuple[str, ...]] = ("id",)
    metric: ClassVar[str] = "accuracy"
    answer_type: ClassVar[str] = "choice"
    profiles: ClassVar[tuple[str, ...]] = ("fixed", "compat")
    max_new_tokens: ClassVar[int] = 16
    chance: ClassVar[float] = 22.1
    dense: ClassVar[dict[str, float]] = {"llava_onevision": 45.44, "qwen2_vl": 50.77, "internvl2_5": 61.56}
    comparable: ClassVar[str] = (
        "no: the paper shows all pictures in front, and its code draws letters for answers without one"
    )

    def name(self, row: Row, item: Any) -> str:
        return str(row["id"])

    def options(self, row: Row) -> Sequence[str]:
        if row["question_type"] != "multiple-choice":
            return ()
        return [str(one) for one in ast.literal_eval(row["options"])]

    def prompt(self, row: Row, item: Any) -> str:
        options = self.options(row)
        return f"{row['question']}\n{listed(options)}\n{LETTER}" if options else f"{row['question']}\n{SHORT}"

    def references(self, row: Row, item: Any) -> tuple[str, ...]:
        return (row["answer"],)

    def sample(self, one: str, row: Row, item: Any = None) -> Sample:
        """Text and pictures in their order; a picture that is mentioned nowhere stands in front."""
        prompt = self.prompt(row, item)
        found = {name[-1]: picture(row[name], self.folder) for name in PICTURES if row[name] is not None}
        parts: list[Any] = [image for number, image in found.items() if f"<image {number}>" not in prompt]
        start, shown = 0, set()
        for mention in MARK.finditer(prompt):
            number = mention[1]
            if number in found and number not in shown:
                shown.add(number)
                parts += [prompt[start : mention.start()], found[number]]
                start = mention.end()
        return Sample.of(one, [*parts, prompt[start:]], self.references(row, item), self.facts(row, item))

    def facts(self, row: Row, item: Any) -> dict[str, Any]:
        return {"options": list(self.options(row))}

    def score(self, text: str, sample: Sample) -> float:
        options = sample.facts["options"]
        if options:
            return mmmu_choice(text, sample.references, options, self.profile)
        return mmmu_open(text, sample.references, self.profile)

    def read(self, text: str, sample: Sample) -> str:
        options = sample.facts["options"]
        return mmmu_letter(text.strip(), options, self.profile) if options else text.strip()

    def invalid(self, text: str, sample: Sample) -> bool:
        return mmmu_invalid(text, sample.facts["options"])

    def counts_in(self, row: Row) -> str:
        """The subject, which stands in the id: "validation_Accounting_1"."""
        return str(row["id"]).partition("_")[2].rpartition("_")[0]

    def reported(self, part: str) -> Sequence[str]:
        """One of six disciplines; a subject that is in none, under its own name."""
        return (DISCIPLINES.get(part, part),)
