"""The closing summary in the terminal: what was measured, what it cost, what was not measured and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from textwrap import wrap
from typing import Any

from effivlm.metrics.statistics import LEAST
from effivlm.report import budgets
from effivlm.report.closing import REASONS, UNSETTLED_MARK, UNTRUSTED_MARK, WIDTH, closing, ran
from effivlm.report.controls import BEATS, BELOW, FEW, NONE_RAN, OPEN
from effivlm.report.costs import SPEEDUPS
from effivlm.report.further import further
from effivlm.report.judges import close_to_dense
from effivlm.report.texts import NONE, block, interval, method, number
from effivlm.report.trust import doubts, loose

CELL_ROWS = 120
FEW_ROWS = 8
_COLUMNS = ("method", "keep", "score [95%]", "OP ratio", "as dense")
_CONTROL = "- random"
"""The head of the difference to the random row at the same budget."""
_VERDICTS = {BEATS: "beats", BELOW: "below", OPEN: "open", FEW: "few", NONE_RAN: ""}
_SPEEDUPS = {"ttft": "TTFT x", "decode": "decode x", "batch": "batch x"}


def table(document: Mapping[str, Any]) -> str:
    """The document as plain text of at most 100 columns; "-" stands where there is no value.

    One block per (model, task), then OP over the tasks of each model that has several. Runs of more than 120 cells show
    the OP blocks alone. A block is cut at 60 rows. "as dense" is the share of samples answered as dense does. Budgets of
    tokens and of cache entries stand apart, as a share of one is no share of the other. "!" marks an untrusted timing and "~"
    one that is not settled.
    """
    cells = document["cells"]
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for cell in cells:
        groups.setdefault((cell["model"], cell["task"]), []).append(cell)
    lines = _status(document["run"])
    if len(cells) <= CELL_ROWS:
        for key, group in groups.items():
            failed = [one for one in document["failed"] if (one["model"], one["task"]) == key]
            lines += _group(group, [one for one in failed if one["status"] == "failed"])
    else:
        lines += [f"{len(cells)} cells in {len(groups)} (model, task) groups: their rows stand in report.html"]
    for model in dict.fromkeys(model for model, _ in groups):
        if sum(known == model for known, _ in groups) > 1 or len(cells) > CELL_ROWS:
            lines += _overall(document, model)
    return "\n".join(_safe(line)[:WIDTH].rstrip() for line in [*lines, *further(document), *closing(document)]) + "\n"


def _status(run: Mapping[str, Any]) -> list[str]:
    notes = [line for note in run.get("notes", []) for line in _folded(f"note: {note}")]
    failed = run["counts"]["failed"]
    if run["status"] == "finished":
        return [f"FINISHED WITH {failed} FAILED {'CASE' if failed == 1 else 'CASES'}", *notes] if failed else notes
    return [f"RUN {run['status'].upper()}: what follows is what was measured until then", *notes]


def _group(group: Sequence[Mapping[str, Any]], failed: Sequence[Mapping[str, Any]]) -> list[str]:
    """The cells of one (model, task), and below them which of its cells failed and why."""
    words = _words(word for cell in group for word, name in SPEEDUPS.items() if name in cell["costs"])
    head = (*_COLUMNS, *_control_head(group), *(_SPEEDUPS[word] for word in words), "asked/kept")
    unanswered = {one["id"] for one in failed if one["part"] == "quality"}
    body = {
        of: [_cell_row(cell, words, head, cell["id"] in unanswered) for cell in those]
        for of, those in _by_budget(group).items()
    }
    more = [f"and {len(failed) - REASONS} more failed: see report.html"] if len(failed) > REASONS else []
    below = [
        *_power(group),
        *_invalid(group),
        *_figures(group),
        *_judges(group),
        *(line for one in failed[:REASONS] for line in _folded(_failure(one))),
        *more,
    ]
    return block(_group_title(group), head, body, below)


def _power(group: Sequence[Mapping[str, Any]]) -> list[str]:
    """The smallest difference to dense that the samples of a block could show, in its median row."""
    known = sorted(
        cell["paired"]["detectable"] * cell["scale"] for cell in group if (cell["paired"] or {}).get("detectable")
    )
    if not known:
        return []
    return [f"its samples show a difference to dense of {known[len(known) // 2]:.1f} four times in five (median row)"]


def _invalid(group: Sequence[Mapping[str, Any]]) -> list[str]:
    """Whose answers say nothing that can be scored, and how many of them: the most first."""
    told = [(cell["invalid"], cell) for cell in group if cell.get("invalid")]
    some = sorted((one for one in told if one[0]["count"]), key=lambda one: -one[0]["rate"])
    if not some:
        return ["no answer is invalid"] * bool(told)
    words = [f"{method(cell)} {budgets.text(cell['keep'])}: {one['rate']:.1%}" for one, cell in some[:FEW_ROWS]]
    more = f" and {len(some) - FEW_ROWS} more" if len(some) > FEW_ROWS else ""
    return _folded(f"invalid answers, which are wrong: {', '.join(words)}{more}")


def _figures(group: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the benchmark reports beside the score, of dense where it ran."""
    lead = next((cell for cell in _ordered(group) if cell.get("parts")), None)
    if lead is None:
        return []
    parts = list(lead["parts"].items())
    words = [f"{name} {number(one['score'], 1, one['scale'])}" for name, one in parts[:FEW_ROWS]]
    more = f" and {len(parts) - FEW_ROWS} more" if len(parts) > FEW_ROWS else ""
    return _folded(f"{method(lead)} {budgets.text(lead['keep'])} by part: {', '.join(words)}{more}")


def _folded(line: str) -> list[str]:
    return wrap(line, WIDTH, subsequent_indent="  ")


def _judges(group: Sequence[Mapping[str, Any]]) -> list[str]:
    """Who marked the answers of a block, the largest noise of that judge in it, and how far a second one agrees at least."""
    known = [(cell["judged"], cell["scale"]) for cell in group if cell.get("judged")]
    lines = []
    for judge in dict.fromkeys(one["judge"] for one, _ in known):
        mine = [(one, scale) for one, scale in known if one["judge"] == judge]
        floors = [one["noise"]["spread"] * scale for one, scale in mine if one["noise"]]
        alike = [one["agreement"] for one, _ in mine if one["agreement"]]
        noise = f"its noise is up to {max(floors):.1f}" if floors else "its noise was not measured"
        lines.append(f"marked by {judge}: {noise}")
        if close := close_to_dense([cell for cell in group if (cell.get("judged") or {}).get("judge") == judge]):
            lines.append(
                f"no further from dense than its noise, which says nothing: {len(close)} of {len(mine) - 1} cells"
            )
        if alike:
            least = min(alike, key=lambda one: one["same"])
            lines.append(
                f"{least['judge']} gives the same mark to {least['same']:.0%} of {least['n']} answers at least"
            )
    return lines


def _group_title(group: Sequence[Mapping[str, Any]]) -> str:
    lead = next((cell for cell in group if cell["metric"]), group[0])
    score = f"{lead['metric']} x {lead['scale']:g}" if lead["metric"] else "no score"
    counts = sorted({cell["n"] for cell in group if cell["n"]}) or [0]
    n = f"n {counts[0]}" if len(counts) == 1 else f"n {counts[0]} to {counts[-1]}"
    weights = ", random weights" if any(cell["weights"] == "random" for cell in group) else ""
    batches = sorted({round(cell["costs"]["batch"]["median"]) for cell in group if "batch" in cell["costs"]})
    batch = f", batch {' and '.join(map(str, batches))}" if batches else ""
    return f"{lead['model']} on {lead['task']} ({score}, {n}{weights}{batch})"


def _words(found: Iterable[str]) -> list[str]:
    """The speed-ups that have a column: those of what was timed."""
    timed = set(found)
    return [word for word in _SPEEDUPS if word in timed]


def _control_head(rows: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """The column of differences to the control, where one ran."""
    return (_CONTROL,) if any(ran(row) for row in rows) else ()


def _against_random(control: Mapping[str, Any] | None, scale: float, digits: int) -> str:
    if control is None or control["difference"] is None:
        return NONE
    return f"{control['difference'] * scale:+.{digits}f} {_VERDICTS[control['verdict']]}"


def _by_budget(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Rows by what their budget is a share of, dense first; "" where that is not known."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in _ordered(rows):
        of = budgets.section(row["keep"], (row["achieved"] or {}).get("of", ""))
        of = "dense" if row["method"] == "dense" else of
        found.setdefault(of, []).append(row)
    return found


def _failure(one: Mapping[str, Any]) -> str:
    reason = one["reason"].strip().split("\n")[0] or "no reason was recorded"
    return f"{method(one)} {budgets.text(one['keep'])} {one['part']} FAILED: {reason}"


def _overall(document: Mapping[str, Any], model: str) -> list[str]:
    summary = document["summary"]
    mine = [row for row in summary["op"] if row["models"] == [model]]
    kind = "common" if any(row["set"] == "common" for row in mine) else "own"
    chosen = [row for row in mine if row["set"] == kind]
    if not chosen:
        return []
    kinds = {(one["method"], one["preset"], one["keep"]): one.get("budget_of", "") for one in summary["pareto"]}
    loyal, faster = _by_setting(summary["ol"], model), _by_setting(summary["oe"], model)
    words = _words(of for *_, of in faster)
    controlled = _control_head(chosen)
    body: dict[str, list[tuple[str, ...]]] = {}
    for row in _ordered(chosen):
        body.setdefault(kinds.get((row["method"], row["preset"], row["keep"]), ""), []).append(
            (
                method(row),
                budgets.text(row["keep"]),
                f"{number(row['value'], 3)} {interval(row['interval'], 3)}".rstrip(),
                str(row["n"]),
                number(_value(loyal, row, ""), 3),
                *(_against_random(row.get("control"), 1.0, 3) for _ in controlled),
                *(number(_value(faster, row, word), 2) for word in words),
            )
        )
    tasks = (
        f"the {len(chosen[0]['tasks'])} tasks that all settings have"
        if kind == "common"
        else "each setting's own tasks"
    )
    head = ("method", "keep", "OP [95%]", "tasks", "as dense", *controlled, *(_SPEEDUPS[word] for word in words))
    return block(f"{model}, OP over {tasks}", head, body)


def _by_setting(rows: Iterable[Mapping[str, Any]], model: str) -> dict[tuple[Any, ...], Any]:
    """Values by (method, preset, keep, what); the common set wins over a setting's own."""
    found: dict[tuple[Any, ...], Any] = {}
    for row in rows:
        if row["models"] == [model]:
            found.setdefault((row["method"], row["preset"], row["keep"], row.get("of", "")), row["value"])
    return found


def _value(found: Mapping[tuple[Any, ...], Any], row: Mapping[str, Any], what: str) -> Any:
    return found.get((row["method"], row["preset"], row["keep"], what))


def _cell_row(cell: Mapping[str, Any], words: Sequence[str], head: Sequence[str], failed: bool) -> tuple[str, ...]:
    scale = cell["scale"]
    scaled = cell["interval"] and [end * scale for end in cell["interval"]]
    achieved = cell["achieved"]
    return (
        method(cell),
        budgets.text(cell["keep"]),
        "FAILED" if failed else f"{number(cell['score'], 1, scale)} {interval(scaled, 1) or _too_few(cell)}".rstrip(),
        number(cell["ratio"], 3),
        number((cell["loyalty"] or {}).get("same"), 3),
        *([_against_random(cell["control"], scale, 1)] if _CONTROL in head else []),
        *(number((cell["speedups"][word] or {}).get("value"), 2) + _marks(cell, word) for word in words),
        _asked_and_kept(achieved, budgets.text(cell["keep"])) if achieved else NONE,
    )


def _too_few(cell: Mapping[str, Any]) -> str:
    """Why a score has no interval, where that is because of its samples."""
    return f"[n < {LEAST}]" if cell["score"] is not None and cell.get("units", cell["n"]) < LEAST else ""


def _marks(cell: Mapping[str, Any], word: str) -> str:
    return (UNTRUSTED_MARK if doubts(cell, word) else "") + (UNSETTLED_MARK if loose(cell, word) else "")


def _asked_and_kept(achieved: Mapping[str, Any], keep: str) -> str:
    """A composition's methods have a budget each, none of which is one of the whole; the page shows them. A long one that stands
    in the row's `keep` is not said twice."""
    kept = f"{achieved['keep']:.3f}"
    if achieved.get("parts"):
        return kept
    if achieved.get("asked"):
        asked = "" if achieved["asked"] == keep else achieved["asked"]
        return f"{asked}/{number(achieved['counted'], 3)}"
    return f"{achieved['asked_keep']:.3g}/{kept}"


def _ordered(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Dense first, then by what budgets are shares of, by method, the largest budget first."""

    def place(row: Mapping[str, Any]) -> tuple[Any, ...]:
        of = budgets.section(row["keep"], (row.get("achieved") or {}).get("of", ""))
        first = row["method"] != "dense", not of.startswith("visual tokens"), of
        return *first, row["method"], row["preset"], budgets.rank(row["keep"])

    return sorted(rows, key=place)


def _safe(line: str) -> str:
    """Names and reasons come from outside: no control character reaches the terminal."""
    return "".join(char if char.isprintable() else "?" for char in line)
