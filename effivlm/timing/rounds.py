"""How often a measurement is repeated: until its median is settled, or there are many rounds, or time is up."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from effivlm.metrics.statistics import median_interval
from effivlm.records import Cost
from effivlm.report.trust import UNSETTLED

LEAST = 6
"""The fewest rounds: as many as a 95 % interval of their median wants."""
MOST = 50
PATIENCE_S = 2.0
"""After so long there are no more rounds than the fewest."""
NO_PATIENCE = 0.0
"""On a CPU: more rounds would prove no more of what a server gains."""
NARROW = 0.02
"""Width of the interval over the median at which a measurement is settled."""


def rounds_of(measurement: Callable[[], float], patience_s: float | None = None) -> list[float]:
    """Measurements in whatever unit they have, of something that is warm; `patience_s` goes before `PATIENCE_S`."""
    rounds: list[float] = []
    start, patience = time.monotonic(), PATIENCE_S if patience_s is None else patience_s
    while len(rounds) < LEAST or (
        spread(rounds) > NARROW and len(rounds) < MOST and time.monotonic() - start < patience
    ):
        rounds.append(measurement())
    return rounds


def spread(rounds: Sequence[float]) -> float:
    """Width of the interval of the rounds' median over the median; infinite under the rounds it wants."""
    interval, median = median_interval(rounds), Cost(tuple(rounds)).median
    return (interval[1] - interval[0]) / median if interval and median > 0 else math.inf


def unsettled(name: str, rounds: Sequence[float]) -> list[str]:
    """A remark where rounds ended before their median was settled."""
    if (wide := spread(rounds)) <= NARROW:
        return []
    return [
        f"{name} {UNSETTLED}: after {len(rounds)} rounds its median's interval is {wide:.0%} wide, not {NARROW:.0%}"
    ]
