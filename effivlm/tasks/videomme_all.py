"""Video-MME: multiple choice over videos of eleven seconds to an hour."""

from __future__ import annotations

from typing import ClassVar

from effivlm.data.source import Source
from effivlm.tasks._videomme import SOURCE, Videomme


class VideommeAll(Videomme):
    """Video-MME (arXiv 2405.21075) without subtitles: 900 videos with three questions each, of three lengths that take turns.

    Called `videomme_all`, beside its profile `videomme_short`. Licence: research only; 95 GB of videos. Official scorer: the
    letter, as in lmms-eval's `videomme` (`metrics/videomme.py`). The prompt is theirs, which speaks of subtitles even where there
    are none. Guessing scores 25.
    """

    source: ClassVar[Source] = SOURCE
    metric: ClassVar[str] = "accuracy"
    answer_type: ClassVar[str] = "choice"
    max_new_tokens: ClassVar[int] = 16
    group: ClassVar[int] = 2
    chance: ClassVar[float] = 25.0
