"""Outcomes of a run of thousands of cells: dense and methods at nine budgets, on tasks and models, with answers and times."""

from __future__ import annotations

from effivlm.records import Outcome
from effivlm.report.collector import paused
from tests.outcomes import cell, quality, timed

BUDGETS = 9


@paused()
def run_of(models: int, tasks: int, settings: int, samples: int = 4, times: bool = False) -> list[Outcome]:
    """One dense cell and `settings` - 1 others for each model and task, of `samples` answers each; `times` adds two timings."""
    found = []
    for place in range(models * tasks * settings):
        setting, pair = place % settings, place // settings
        method, budget = divmod(setting - 1, BUDGETS)
        which = cell(
            f"m{method:02}" if setting else "dense",
            f"0.{budget + 1}0" if setting else "1.00",
            f"t{pair % tasks}",
            f"k{pair // tasks}",
        )
        scores = [1.0, *(float((place * step) % 7 < 4 + budget % 3) for step in range(2, samples + 1))]
        found.append(quality(which, scores, [score > 0 for score in scores] if setting else None))
        if times:
            faster = 1 + (place % 13) / 10 if setting else 1
            found += [
                timed(which, "ttft", *(0.2 / faster + step / 1e4 for step in range(6))),
                timed(which, "decode", *(4 / faster + step / 1e3 for step in range(6))),
            ]
    return found
