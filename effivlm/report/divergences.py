"""How far next tokens of a cell are from dense's along dense's answers, over the samples of one (model, task)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from effivlm.metrics.resampling import Resampling
from effivlm.metrics.statistics import LEAST, column_means, ends, has_no_width, intervals
from effivlm.records import Answer

Column = Sequence[Answer | None]


def divergences(columns: Sequence[Column], resamples: Resampling) -> list[dict[str, Any] | None]:
    """The divergence of every cell from its answers to the same samples, None where it was not measured.

    `value`: mean nats of a position, over the positions of an answer and then over samples, with a bootstrap interval over
    samples (None under `LEAST` of them, and where all resamples agree); `n` samples and `positions` stand behind it. `rest` is
    the mean mass of dense's distribution that was not told apart, for which `value` is a lower bound.
    """
    found: list[dict[str, Any] | None] = [None] * len(columns)
    told = [[None if answer is None else answer.kl for answer in column] for column in columns]
    places = [place for place, column in enumerate(told) if any(column)]
    if not places:
        return found
    nats = np.array([[one.nats if one else np.nan for one in told[place]] for place in places]).T
    drawn, counts = intervals(resamples.means(nats)), resamples.answered(nats)
    for place, value, interval, count in zip(places, column_means(nats), drawn, counts, strict=True):
        known = [one for one in told[place] if one]
        stated = interval is not None and count >= LEAST and not has_no_width(interval)
        found[place] = {
            "value": value,
            "interval": ends(interval) if stated else None,
            "n": len(known),
            "positions": sum(one.positions for one in known),
            "rest": sum(one.rest for one in known) / len(known),
        }
    return found
