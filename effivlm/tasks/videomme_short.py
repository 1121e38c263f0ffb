"""The short videos of Video-MME, for every day."""

from __future__ import annotations

from typing import ClassVar

from effivlm.data.source import Source
from effivlm.tasks._videomme import SOURCE, Videomme


class VideommeShort(Videomme):
    """The 300 videos of Video-MME (arXiv 2405.21075) under two minutes: 900 questions, a profile and not the benchmark's score.

    Licence, scorer, prompt and chance as `videomme_all`.
    """

    source: ClassVar[Source] = SOURCE
    metric: ClassVar[str] = "accuracy"
    answer_type: ClassVar[str] = "choice"
    max_new_tokens: ClassVar[int] = 16
    group: ClassVar[int] = 2
    chance: ClassVar[float] = 25.0
    lengths: ClassVar[tuple[str, ...]] = ("short",)
