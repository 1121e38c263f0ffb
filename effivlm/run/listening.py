"""Who hears of a group's answers while they are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from effivlm.run.answers import Note
from effivlm.run.gave import Asked

Progress = Callable[[int, int], None]
OnAnswers = Callable[[int, Asked], None]


@dataclass(frozen=True)
class Told:
    """Who hears of a group's answers, and what is known of them already; `count` models answer one after another."""

    on_progress: Progress | None = None
    on_note: Note | None = None
    on_answers: OnAnswers | None = None
    stored: Mapping[int, Asked] = field(default_factory=dict)
    count: int = 1
