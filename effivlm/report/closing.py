"""The last lines of the summary in the terminal: counts, reasons, missing controls, what the marks mean."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import wrap
from typing import Any

from effivlm.report.controls import NONE_RAN
from effivlm.report.costs import SPEEDUPS
from effivlm.report.trust import doubts, loose

WIDTH = 100
REASONS = 5
UNTRUSTED_MARK, UNSETTLED_MARK = "!", "~"


def closing(document: Mapping[str, Any]) -> list[str]:
    """Counts, what was not measured and why, which controls are missing, and what the marks at timings mean."""
    counts = document["run"]["counts"]
    cut_short = [one for one in document["failed"] if one["status"] == "interrupted"]
    failed = [one for one in document["failed"] if one["status"] != "interrupted"]
    gone = f", {len(cut_short)} not run" if cut_short else ""
    missed = f"{len(document['skipped'])} skipped, {len(failed)} failed{gone}, {counts['broken']} broken samples"
    lines = [
        "",
        *_floor(document),
        *_uncontrolled(document),
        *_discoveries(document),
        *_timings(document),
        f"{counts['cells']} measured, {missed}",
    ]
    for one in document["summary"].get("refused", []):
        lines.append(f"  refused {one['table'].upper()}: {one['reason']}; select {one['select']}")
    for word, those in (("skipped", document["skipped"]), ("failed", failed), ("not run", cut_short)):
        reasons: dict[str, int] = {}
        for one in those:
            reason = one["reason"].strip().split("\n")[0] or one["status"]
            reasons[reason] = reasons.get(reason, 0) + 1
        ranked = sorted(reasons.items(), key=lambda item: -item[1])
        for reason, count in ranked[:REASONS]:
            lines += wrap(f"{word} {count} x: {reason}", WIDTH, initial_indent="  ", subsequent_indent="    ")
        if len(ranked) > REASONS:
            lines.append(f"  {word} for {len(ranked) - REASONS} more reasons: see report.html")
    return lines


def _floor(document: Mapping[str, Any]) -> list[str]:
    """What "as dense" reaches by itself: dense against dense, over the (model, task) pairs that measured it."""
    floors = [cell["noise"]["same"] for cell in document["cells"] if (cell.get("noise") or {}).get("same") is not None]
    if not floors:
        return []
    low, high = min(floors), max(floors)
    spread = f"{low:.3f}" if low == high else f"{low:.3f} to {high:.3f}"
    return [f'noise floor of "as dense": {spread} (dense against dense, {len(floors)} of its cells)']


def _uncontrolled(document: Mapping[str, Any]) -> list[str]:
    """Which controls are missing, and for how many cells."""
    lacks: dict[str, int] = {}
    for cell in document["cells"]:
        if cell.get("control") and not ran(cell):
            lacks[cell["control"]["method"]] = lacks.get(cell["control"]["method"], 0) + 1
    return [
        f"no control ran for {count} {'cell' if count == 1 else 'cells'}: without {name} at the same budget none is shown to"
        " beat chance"
        for name, count in lacks.items()
    ]


def _discoveries(document: Mapping[str, Any]) -> list[str]:
    """How many comparisons verdicts take into account, where there are several."""
    found = document["run"].get("discoveries")
    count = max((found["families"].get(name, 0) for name in ("random", "random_op")), default=0) if found else 0
    if count < 2:
        return []
    return [f"verdicts hold the rate of false ones at {found['rate']:.0%} over {count} comparisons ({found['rule']})"]


def _timings(document: Mapping[str, Any]) -> list[str]:
    """What the marks at timings mean, with how many timings and why."""
    found: dict[str, int] = {}
    unsettled = 0
    for cell in document["cells"]:
        for word in SPEEDUPS:
            unsettled += bool(loose(cell, word))
            for reason in doubts(cell, word):
                found[reason] = found.get(reason, 0) + 1
    lines = [f"{UNTRUSTED_MARK} untrusted, so in no mean and not in the gate:"] if found else []
    for reason, count in sorted(found.items(), key=lambda item: -item[1])[:REASONS]:
        lines += wrap(f"{count} x {reason}", WIDTH, initial_indent="  ", subsequent_indent="    ")
    if len(found) > REASONS:
        lines.append(f"{UNTRUSTED_MARK} untrusted for {len(found) - REASONS} more reasons: see report.html")
    return [*lines, *([f"{UNSETTLED_MARK} not settled: {unsettled} medians, see report.html"] if unsettled else [])]


def ran(row: Mapping[str, Any]) -> bool:
    """Whether the control of a cell, or of a setting, was measured."""
    return bool(row.get("control")) and row["control"]["verdict"] != NONE_RAN
