"""OP over the tasks of a suite: of each suite that a run has tasks of, on exactly those that it has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from effivlm.report.cells import DENSE, Row
from effivlm.report.mixes import Refused
from effivlm.report.rows import op_rows
from effivlm.report.sets import Compare
from effivlm.suites import suites

_OP = ("method", "preset", "keep", "set", "undefined", "tasks", "value", "mean", "interval", "n")


def of_suites(rows: Sequence[Row]) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """OP of every setting on every model over the tasks of each suite, and what was refused.

    Tasks that are scored in different ways (by rule, by a judge) have no common mean, so each way has rows of its own. `tasks`
    are those in the mean, `of` counts those of the suite, `missing` are those that the run has nothing of. `set` as in the
    summary: rows on "common" tasks are compared with each other, those on their "own" with nothing.
    """
    measured = {row.data["task"] for row in rows}
    found: list[dict[str, Any]] = []
    refused = Refused()
    for word, tasks in suites("tasks").items():
        missing = [task for task in tasks if task not in measured]
        facts = {"suite": word, "of": len(tasks), "missing": missing}
        for scored, own in _by_scoring(rows, tasks).items():
            compare = Compare(_by_model(own), refused, f"suite {word}")
            for row in op_rows(compare, [(model,) for model in compare.by_model], {}):
                told = {name: row[name] for name in _OP}
                found.append({**facts, "scored": scored, "model": row["models"][0], **told})
    return found, refused.rows()


def _by_scoring(rows: Sequence[Row], tasks: Sequence[str]) -> dict[str, list[Row]]:
    """The settings' rows of these tasks, in the suite's order of tasks."""
    own = [row for row in rows if row.data["task"] in tasks and row.data["method"] != DENSE]
    found: dict[str, list[Row]] = {}
    for row in sorted(own, key=lambda row: tasks.index(row.data["task"])):
        found.setdefault(row.origins["quality"].scoring, []).append(row)
    return found


def _by_model(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.data["model"], []).append(row)
    return found
