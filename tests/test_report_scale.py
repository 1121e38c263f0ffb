"""A document of thousands of cells: processor time, memory, and how both grow."""

from __future__ import annotations

import time
import tracemalloc

from effivlm.records import Outcome
from effivlm.report.document import build
from tests.outcomes import END, HEADER
from tests.thousands import run_of


def seconds(outcomes: list[Outcome]) -> float:
    began = time.process_time()
    build(HEADER, outcomes, END)
    return time.process_time() - began


def test_ten_thousand_cells_of_a_hundred_answers_make_a_document_in_seconds() -> None:
    outcomes = run_of(models=10, tasks=10, settings=100, samples=100)
    assert sum(len(outcome.answers) for outcome in outcomes) == 1_000_000
    assert seconds(outcomes) < 6  # half of it on a processor that nobody shares


def test_four_times_the_models_take_about_four_times_as_long() -> None:
    few, many = run_of(models=10, tasks=1, settings=20), run_of(models=40, tasks=1, settings=20)
    once, often = (min(seconds(outcomes) for _ in range(2)) for outcomes in (few, many))
    assert often < 8 * once


def test_a_document_takes_memory_by_the_cell_and_no_more() -> None:
    outcomes = run_of(models=5, tasks=2, settings=40)
    tracemalloc.start()
    try:
        build(HEADER, outcomes, END)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak / len(outcomes) < 50_000  # bytes: 500 MB for ten thousand cells
