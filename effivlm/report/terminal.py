"""The closing summary in the terminal: what was measured, what it cost, what was not measured and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

WIDTH = 100
CELL_ROWS = 120
BLOCK_ROWS = 60
REASONS = 5
_COLUMNS = ("method", "keep", "score [95%]", "OP ratio", "as dense")
_SPEEDUPS = {"ttft": "TTFT x", "decode": "decode x", "batch": "batch x"}
_NONE = "-"


def table(document: Mapping[str, Any]) -> str:
    """The document as plain text of at most 100 columns; "-" stands where there is no value.

    One block per (model, task), then OP over the tasks of each model that has several. Runs of more than 120 cells show
    the OP blocks alone. A block is cut at 60 rows. "as dense" is the share of samples answered as dense does.
    """
    cells = document["cells"]
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for cell in cells:
        groups.setdefault((cell["model"], cell["task"]), []).append(cell)
    lines = _status(document["run"])
    if len(cells) <= CELL_ROWS:
        for group in groups.values():
            words = _words(cell["speedups"]["batch"] for cell in group)
            head = (*_COLUMNS, *(_SPEEDUPS[word] for word in words), "asked/kept")
            lines += _block(_group_title(group), head, [_cell_row(cell, words) for cell in _ordered(group)])
    else:
        lines += [f"{len(cells)} cells in {len(groups)} (model, task) groups: their rows stand in report.html"]
    for model in dict.fromkeys(model for model, _ in groups):
        if sum(known == model for known, _ in groups) > 1 or len(cells) > CELL_ROWS:
            lines += _overall(document, model)
    return "\n".join(_safe(line)[:WIDTH].rstrip() for line in [*lines, *_closing(document)]) + "\n"


def _status(run: Mapping[str, Any]) -> list[str]:
    notes = [f"note: {note}" for note in run.get("notes", [])]
    if run["status"] == "finished":
        return notes
    return [f"RUN {run['status'].upper()}: what follows is what was measured until then", *notes]


def _group_title(group: Sequence[Mapping[str, Any]]) -> str:
    lead = next((cell for cell in group if cell["metric"]), group[0])
    score = f"{lead['metric']} x {lead['scale']:g}" if lead["metric"] else "no score"
    counts = sorted({cell["n"] for cell in group})
    n = f"n {counts[0]}" if len(counts) == 1 else f"n {counts[0]} to {counts[-1]}"
    weights = ", random weights" if any(cell["weights"] == "random" for cell in group) else ""
    batches = sorted({round(cell["costs"]["batch"]["median"]) for cell in group if "batch" in cell["costs"]})
    batch = f", batch {' and '.join(map(str, batches))}" if batches else ""
    return f"{lead['model']} on {lead['task']} ({score}, {n}{weights}{batch})"


def _words(batched: Iterable[Any]) -> list[str]:
    """The speed-ups that have a column: that of a batch only where one was timed."""
    return [word for word in _SPEEDUPS if word != "batch" or any(batched)]


def _overall(document: Mapping[str, Any], model: str) -> list[str]:
    summary = document["summary"]
    mine = [row for row in summary["op"] if row["models"] == [model]]
    kind = "common" if any(row["set"] == "common" for row in mine) else "own"
    chosen = [row for row in mine if row["set"] == kind]
    if not chosen:
        return []
    loyal, faster = _by_setting(summary["ol"], model), _by_setting(summary["oe"], model)
    words = _words(of == "batch" for *_, of in faster)
    body = [
        (
            _method(row),
            f"{row['keep']:.3g}",
            f"{_number(row['value'], 3)} {_interval(row['interval'], 3)}".rstrip(),
            str(row["n"]),
            _number(_value(loyal, row, ""), 3),
            *(_number(_value(faster, row, word), 2) for word in words),
        )
        for row in _ordered(chosen)
    ]
    tasks = (
        f"the {len(chosen[0]['tasks'])} tasks that all settings have"
        if kind == "common"
        else "each setting's own tasks"
    )
    head = ("method", "keep", "OP [95%]", "tasks", "as dense", *(_SPEEDUPS[word] for word in words))
    return _block(f"{model}, OP over {tasks}", head, body)


def _by_setting(rows: Iterable[Mapping[str, Any]], model: str) -> dict[tuple[Any, ...], Any]:
    """Values by (method, preset, keep, what); the common set wins over a setting's own."""
    found: dict[tuple[Any, ...], Any] = {}
    for row in rows:
        if row["models"] == [model]:
            found.setdefault((row["method"], row["preset"], row["keep"], row.get("of", "")), row["value"])
    return found


def _value(found: Mapping[tuple[Any, ...], Any], row: Mapping[str, Any], what: str) -> Any:
    return found.get((row["method"], row["preset"], row["keep"], what))


def _cell_row(cell: Mapping[str, Any], words: Sequence[str]) -> tuple[str, ...]:
    scale = cell["scale"]
    scaled = cell["interval"] and [end * scale for end in cell["interval"]]
    achieved = cell["achieved"]
    return (
        _method(cell),
        f"{cell['keep']:.3g}",
        f"{_number(cell['score'], 1, scale)} {_interval(scaled, 1)}".rstrip(),
        _number(cell["ratio"], 3),
        _number((cell["loyalty"] or {}).get("same"), 3),
        *(_number((cell["speedups"][word] or {}).get("value"), 2) for word in words),
        _asked_and_kept(achieved) if achieved else _NONE,
    )


def _asked_and_kept(achieved: Mapping[str, Any]) -> str:
    """A composition's methods have a budget each, none of which is one of the whole; the page shows them."""
    kept = f"{achieved['keep']:.3f}"
    return kept if achieved.get("parts") else f"{achieved['asked_keep']:.3g}/{kept}"


def _closing(document: Mapping[str, Any]) -> list[str]:
    counts = document["run"]["counts"]
    cut_short = [one for one in document["failed"] if one["status"] == "interrupted"]
    failed = [one for one in document["failed"] if one["status"] != "interrupted"]
    gone = f", {len(cut_short)} not run" if cut_short else ""
    missed = f"{len(document['skipped'])} skipped, {len(failed)} failed{gone}, {counts['broken']} broken samples"
    lines = ["", *_floor(document), f"{counts['cells']} measured, {missed}"]
    for one in document["summary"].get("refused", []):
        lines.append(f"  refused {one['table'].upper()}: {one['reason']}; select {one['select']}")
    for word, those in (("skipped", document["skipped"]), ("failed", failed), ("not run", cut_short)):
        reasons: dict[str, int] = {}
        for one in those:
            reason = one["reason"].strip().split("\n")[0] or one["status"]
            reasons[reason] = reasons.get(reason, 0) + 1
        ranked = sorted(reasons.items(), key=lambda item: -item[1])
        lines += [f"  {word} {count} x: {reason}" for reason, count in ranked[:REASONS]]
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


def _block(title: str, head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    wide = [max(len(row[place]) for row in (head, *body)) for place in range(len(head))]
    wide[0] = min(wide[0], WIDTH - sum(wide[1:]) - 2 * (len(wide) - 1))
    lines = []
    for row in (head, *body[:BLOCK_ROWS]):
        first = _short(row[0], wide[0]).ljust(wide[0])
        lines.append("  ".join([first, *(text.rjust(width) for text, width in zip(row[1:], wide[1:], strict=True))]))
    cut = [f"and {len(body) - BLOCK_ROWS} more rows: see report.html"] if len(body) > BLOCK_ROWS else []
    return ["", _short(title, WIDTH), *lines, *cut]


def _ordered(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Dense first, then by method, the largest budget first."""
    return sorted(rows, key=lambda row: (row["method"] != "dense", row["method"], row["preset"], -row["keep"]))


def _method(row: Mapping[str, Any]) -> str:
    method: str = row["method"]
    return method if row["preset"] in ("paper", "") else f"{method}@{row['preset']}"


def _number(value: float | None, digits: int, scale: float = 1.0) -> str:
    return _NONE if value is None else f"{value * scale:.{digits}f}"


def _interval(ends: Sequence[float] | None, digits: int) -> str:
    return "" if ends is None else f"[{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]"


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(1, width - 2)] + ".."


def _safe(line: str) -> str:
    """Names and reasons come from outside: no control character reaches the terminal."""
    return "".join(char if char.isprintable() else "?" for char in line)
