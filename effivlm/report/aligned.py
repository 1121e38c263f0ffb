"""The answers of several cells of one (model, task) side by side: which of them are to the same question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter

import numpy as np

from effivlm.metrics.resampling import Places
from effivlm.metrics.units import units as units_of
from effivlm.records import Answer, Outcome

_ASKED = attrgetter("id", "prompt_sha256")


@dataclass(frozen=True, slots=True)
class Aligned:
    """By cell its answers to all samples, None where it has none; `alike`: it was asked the lead's questions in the lead's order.

    `ids` name the samples, with a digest of the question where one id has several.
    """

    ids: Sequence[str]
    columns: Sequence[Sequence[Answer | None]]
    alike: Sequence[bool]

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], lead: Outcome) -> Aligned:
        """Samples in the order of the `lead`, those that it does not have behind them."""
        questions = _questions([lead, *outcomes])
        names = _names([lead, *outcomes], questions)
        ids = names[0] if all(one == names[0] for one in names) else list(dict.fromkeys(chain.from_iterable(names)))
        columns = [_column(*one, ids) for one in zip(outcomes, names[1:], strict=True)]
        return cls(ids, columns, [own is questions[0] for own in questions[1:]])

    def units(self, group: int) -> Places:
        """The number of the unit that each sample is drawn with, by its name, so that the order of samples decides nothing."""
        shown = [next((one.pictures for one in row if one is not None), "") for row in zip(*self.columns, strict=True)]
        names = units_of(self.ids, group, shown)
        numbers = {name: number for number, name in enumerate(sorted(set(names)))}
        return np.array([numbers[name] for name in names])


def _questions(outcomes: Sequence[Outcome]) -> list[list[tuple[str, str]]]:
    """Each outcome's samples and the digests of their questions; all that are like the first are one object with it."""
    first = list(map(_ASKED, outcomes[0].answers))
    own = (list(map(_ASKED, outcome.answers)) for outcome in outcomes)
    return [first if one == first else one for one in own]


def _names(outcomes: Sequence[Outcome], questions: Sequence[list[tuple[str, str]]]) -> list[list[str]]:
    """What each answer is paired by: its sample's id, and the digest of its question where one id has several."""
    if all(those is questions[0] for those in questions):  # nearly always, and most of the work otherwise
        ids = [one for one, _ in questions[0]]
        if len(set(ids)) == len(ids):
            return [ids] * len(outcomes)
    asked: dict[str, set[str]] = {}
    for one, question in chain.from_iterable(questions):
        asked.setdefault(one, set()).add(question)

    def named(answer: Answer) -> str:
        return answer.id if len(asked[answer.id]) == 1 else f"{answer.prompt_sha256[:12]} {answer.id}"

    return [[named(answer) for answer in outcome.answers] for outcome in outcomes]


def _column(outcome: Outcome, names: list[str], ids: list[str]) -> Sequence[Answer | None]:
    if names == ids:
        return outcome.answers
    by_name = dict(zip(names, outcome.answers, strict=True))
    return [by_name.get(name) for name in ids]
