"""OP, OG, OL and OE from ratios, shares and speed-ups; None goes in and is counted, never averaged.

A ratio is score / dense score, a share lies in [0, 1], a speed-up is dense time / own time. NaN and infinity raise ValueError.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Nested = Mapping[str, Mapping[str, float | None]]  # model to task to value


@dataclass(frozen=True, slots=True)
class Mean:
    """An average with the number of values in it and of those missing; `value` is None where nothing is averaged."""

    value: float | None
    n: int
    missing: int = 0


def mean(values: Iterable[float | None]) -> Mean:
    """Arithmetic mean."""
    present, missing = _present(values)
    return Mean(math.fsum(present) / len(present) if present else None, len(present), missing)


def overall_performance(ratios: Iterable[float | None]) -> Mean:
    """OP of one model and setting: root mean square over tasks of score / dense score (EffiVLM-Bench, arXiv
    2506.00479).

    RMS flatters uneven profiles, so `mean` of the same ratios stands beside it.
    """
    present, missing = _present(ratios)
    squares = math.fsum(ratio * ratio for ratio in present)
    return Mean(math.sqrt(squares / len(present)) if present else None, len(present), missing)


def generalization(ratios_by_model: Nested) -> Mean:
    """OG of one setting in percent, lower is better: spread over tasks of the ratio averaged over models.

    100 * population deviation / mean. A task that lacks a ratio for any model is missing; fewer than two tasks have no
    spread.
    """
    models = list(ratios_by_model.values())
    tasks = dict.fromkeys(task for ratios in models for task in ratios)
    averages = [_complete_mean(ratios.get(task) for ratios in models) for task in tasks]
    return _variation(averages)


def generalization_across_models(ratios_by_model: Nested) -> Mean:
    """The same with the roles exchanged: spread over models, in percent, of the ratio averaged over tasks.

    Averaging models first hides how differently they react; this is where it shows. Tasks that any model lacks are left
    out.
    """
    models = list(ratios_by_model.values())
    tasks = {task for ratios in models for task in ratios}
    shared = [task for task in tasks if all(ratios.get(task) is not None for ratios in models)]
    return _variation([_complete_mean(ratios[task] for task in shared) for ratios in models])


def loyalty(shares_by_model: Nested) -> Mean:
    """OL of one setting in [0, 1]: share of samples answered as dense does, averaged over tasks, then over models.

    `n` counts (model, task) pairs; free-form tasks have no share and belong in no such mean.
    """
    by_model = [mean(shares.values()) for shares in shares_by_model.values()]
    pairs, missing = sum(one.n for one in by_model), sum(one.missing for one in by_model)
    return Mean(mean(one.value for one in by_model).value, pairs, missing)


def efficiency(speedups: Iterable[float | None]) -> Mean:
    """OE of one setting: geometric mean of speed-ups (dense time / own time); ValueError if one is not positive."""
    present, missing = _present(speedups)
    for speedup in present:
        if speedup <= 0:
            raise ValueError(f"speed-up {speedup} is not positive")
    logs = math.fsum(map(math.log, present))
    return Mean(math.exp(logs / len(present)) if present else None, len(present), missing)


def _present(values: Iterable[float | None]) -> tuple[list[float], int]:
    everything = list(values)
    present = [value for value in everything if value is not None]
    for value in present:
        if not math.isfinite(value):
            raise ValueError(f"{value} is no number to average: give None where there is no value")
    return present, len(everything) - len(present)


def _complete_mean(values: Iterable[float | None]) -> float | None:
    average = mean(values)
    return None if average.missing else average.value


def _variation(averages: list[float | None]) -> Mean:
    present, missing = _present(averages)
    centre = math.fsum(present) / len(present) if present else 0.0
    if len(present) < 2 or centre == 0:
        return Mean(None, len(present), missing)
    return Mean(100 * statistics.pstdev(present) / centre, len(present), missing)
