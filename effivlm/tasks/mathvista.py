"""MathVista: mathematics in figures, charts and photographs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from effivlm.data.rows import Row
from effivlm.data.source import Source
from effivlm.metrics.mathvista import Problem, mathvista, mathvista_rule
from effivlm.records import Sample
from effivlm.tasks._benchmark import LETTERS, Benchmark

HINTS: Mapping[tuple[str, str], str] = {
    ("multi_choice", "text"): "provide the correct option letter, e.g., A, B, C, D, at the end.",
    ("free_form", "integer"): "requiring an integer answer and provide the final value, e.g., 1, 2, 3, at the end.",
    ("free_form", "float1"): (
        "requiring a floating-point number with one decimal place and provide the final value, e.g., 1.2, 1.3, 1.4,"
        " at the end."
    ),
    ("free_form", "float2"): (
        "requiring a floating-point number with two decimal places and provide the final value, e.g., 1.23, 1.34, 1.45,"
        " at the end."
    ),
    ("free_form", "list"): (
        "requiring a Python list as an answer and provide the final list, e.g., [1, 2, 3], [1.2, 1.3, 1.4], at the end."
    ),
}


class Mathvista(Benchmark):
    """MathVista's testmini (arXiv 2310.02255): 1,000 questions with the hint that asks for the answer at the end ("cot").

    Licence: CC BY-SA 4.0, for testing only. Official scorer: a language judge extracts the answer, which is then compared; here a
    rule extracts it (`metrics/mathvista.py`), so scores are not the official ones. The paper's code also fails all 40 questions
    with a float, up to 4 points. Guessing scores 17.9.
    """

    source: ClassVar[Source] = Source(
        homes=("AI4Math/MathVista",),
        split="testmini",
        rows=1000,
        columns={
            "pid": "text",
            "question": "text",
            "unit": "text?",
            "choices": "[text]?",
            "precision": "float?",
            "answer": "text",
            "question_type": "text",
            "answer_type": "text",
            "decoded_image": "image",
        },
        gigabytes=0.143,
        licence="CC BY-SA 4.0",
    )
    index: ClassVar[tuple[str, ...]] = ("pid",)
    metric: ClassVar[str] = "accuracy_by_rule"
    answer_type: ClassVar[str] = "free"
    profiles: ClassVar[tuple[str, ...]] = ("fixed", "compat")
    max_new_tokens: ClassVar[int] = 256
    chance: ClassVar[float] = 17.9
    dense: ClassVar[dict[str, float]] = {"llava_onevision": 58.2, "qwen2_vl": 58.3, "internvl2_5": 70.2}
    comparable: ClassVar[str] = "no: answers are extracted by a rule instead of a judge"

    def name(self, row: Row, item: Any) -> str:
        return str(row["pid"])

    def prompt(self, row: Row, item: Any) -> str:
        unit = f" (Unit: {row['unit']})" if row["unit"] else ""
        marked = [f"({mark}) {text}" for mark, text in zip(LETTERS, row["choices"] or (), strict=False)]
        choices = ["Choices:", *marked] if marked else []
        return "\n".join([f"Question: {row['question']}{unit}", *choices, f"Hint: {_hint(row)}"])

    def references(self, row: Row, item: Any) -> tuple[str, ...]:
        return (row["answer"],)

    def images(self, row: Row) -> Sequence[Any]:
        return (row["decoded_image"],)

    def facts(self, row: Row, item: Any) -> dict[str, Any]:
        choices = tuple(row["choices"] or ())
        return {"problem": Problem(row["question_type"], row["answer_type"], choices, row["precision"])}

    def score(self, text: str, sample: Sample) -> float:
        return mathvista(self.read(text, sample), sample.references[0], sample.facts["problem"], self.profile)

    def read(self, text: str, sample: Sample) -> str:
        return mathvista_rule(text, sample.facts["problem"])

    def invalid(self, text: str, sample: Sample) -> bool:
        return not self.read(text, sample)


def _hint(row: Row) -> str:
    if row["question_type"] == "multi_choice":
        return f"Please answer the question and {HINTS['multi_choice', 'text']}"
    kind = row["answer_type"]
    found = HINTS.get(("free_form", f"float{int(row['precision'] or 1)}" if kind == "float" else kind))
    if found is None:
        raise ValueError(f"MathVista knows no answers of type {kind!r} with precision {row['precision']!r}")
    return f"Please answer the question {found}"
