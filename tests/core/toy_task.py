"""A task over every form of question, and all cells that methods offer for it."""

from __future__ import annotations

from collections.abc import Sequence

from forms import FORMS, sample

from effivlm import registry
from effivlm.records import Cell, Sample
from effivlm.tasks._base import Task

KEEPS = ("0.05", "0.30", "1.00")


class Toy(Task):
    """Questions of every form; an answer scores by its length."""

    metric = "length"
    answer_type = "short"
    max_new_tokens = 6
    forms: Sequence[str] = FORMS

    def samples(self, limit: int, seed: int) -> Sequence[Sample]:
        return [sample(form, number) for number, form in enumerate(self.forms)][:limit]

    def score(self, text: str, sample: Sample) -> float:
        return min(1.0, len(text) / 20)


def cells(*, keeps: Sequence[str] = KEEPS, methods: Sequence[str] | None = None) -> list[Cell]:
    found = []
    for name in methods or registry.token_methods():
        declared = registry.declared("methods", name)
        for preset in declared["presets"]:
            for keep in keeps if declared.get("budgeted", True) else ("1.00",):
                found.append(Cell("twin", name, preset, keep, "toy"))
    return found
