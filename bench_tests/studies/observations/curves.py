"""Mean scores of methods by budget and kind of task: what the page draws beside the verdicts."""

from __future__ import annotations

from typing import Any

from bench_tests.studies.observations.evidence import Evidence
from bench_tests.studies.observations.names import (
    BUDGETS,
    COARSE,
    FINE,
    LONG,
    PRUNING,
    SEVERAL,
    TOKENS,
    VIDEO,
    at,
)
from bench_tests.studies.observations.tally import DENSE, Missing

KINDS = {
    "fine detail": FINE,
    "what and where, options, yes or no": COARSE,
    "long answers": LONG,
    "several images": SEVERAL,
    "video": VIDEO,
}
CONTROLS = ("random_visual", "random_kv")


def curves(evidence: Evidence) -> list[dict[str, Any]]:
    """For every kind of task that was run: dense's mean score, and those of each method by budget, over the same pairs."""
    book, found = evidence.scores, []
    for kind, tasks in KINDS.items():
        methods = [name for name in (*TOKENS, *CONTROLS) if all(book.has(one) for one in at(name, BUDGETS))]
        try:
            pairs = book.pairs([*at(methods, BUDGETS), DENSE], tasks)
        except Missing:
            continue
        lines = [
            {
                "method": name,
                "prunes": name in (*PRUNING, CONTROLS[0]),
                "scores": [float(book.over(pairs, [(name, label)])[0]) for label in BUDGETS],
            }
            for name in methods
        ]
        dense = float(book.over(pairs, [DENSE])[0])
        found.append({"kind": kind, "budgets": [*BUDGETS], "dense": dense, "pairs": len(pairs), "lines": lines})
    return found
