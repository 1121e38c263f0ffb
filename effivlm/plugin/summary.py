"""What the terminal says before and after a run. No pytest in here: the terminal reporter is handed in."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from effivlm.plugin.session import Run, Session
from effivlm.records import Cell
from effivlm.registry import inherited
from effivlm.run.sharding import numbers_of
from effivlm.run.steps import stored
from effivlm.session import recorder
from effivlm.session.matrix import part_of
from effivlm.session.recorder import Key

WITHOUT_TABLE = "not in pytest-benchmark's table"
# Seconds on two CPU cores with an embedded micro model, for the first estimate; later ones come from the last run.
DENSE_GUESS = 0.45  # of a sample, answered twice
OWN_GUESS, SHARED_GUESS = 0.06, 0.035  # of a sample in a cell with a prefill of its own, and in one that shares dense's
TIMING_GUESS = {"ttft": 1.4, "decode": 1.3}
GROUP_SECONDS = 6.0  # imports, opening a model, the first pass
PACE = "quality_pace"  # among the rates of a run: seconds of its quality cases over those guessed for them
RUNS = 5
SHOWN = 12


def announce(bench: Session, nodeids: Sequence[str]) -> list[str]:
    """How many cases a session has and about how long it takes; nothing for a session without cells."""
    planned = [(cell, part_of(nodeid)) for nodeid in nodeids if (cell := bench.cell_of(nodeid)) is not None]
    if not planned:
        return []
    settings = bench.plan().settings
    cells = {cell for cell, _ in planned}
    models, tasks = {cell.model for cell in cells}, {cell.task for cell in cells}
    methods = {(cell.method, cell.preset) for cell in cells}
    timings = sum(part != "quality" for _, part in planned)
    kinds = f"{_count(models, 'model')}, {_count(methods, 'method')}, {_count(tasks, 'task')}"
    own = len(numbers_of(settings.shard, settings.limit))
    share = f", {own} of them in shard {settings.shard}" if settings.shard else ""
    size = (
        f"effivlm: {_count(cells, 'cell')} in {_count(planned, 'case')} ({len(planned) - timings} quality, {timings} timing):"
        f" {kinds}, {settings.limit} samples a cell{share}"
    )
    left_out = [f"effivlm: left out: {reason}" for reason in bench.plan().left_out]
    less = ", less for what stands already" if bench.resuming else ""
    return [size, *left_out, f"effivlm: {estimate(planned, own, bench.runs, bench.processes)}{less}"]


def _count(things: Collection[Any], word: str) -> str:
    return f"{len(things)} {word}{'' if len(things) == 1 else 's'}"


def estimate(planned: Sequence[Key], limit: int, runs: Path, processes: int = 1) -> str:
    """About how long, and by what: the largest recent run under `runs`, else a figure for the micro model on CPU."""
    known = _last_rates(runs)
    missing = sorted({cell.model for cell, _ in planned if _name(cell.model, cell.task) not in known})
    if missing and missing != [model for model in missing if model.startswith("micro_")]:
        return f"no estimate of the time: {', '.join(missing)} never ran here"
    by_group: dict[tuple[str, str], list[Key]] = {}
    for cell, part in planned:
        by_group.setdefault(cell.group, []).append((cell, part))
    seconds = sum(_seconds(keys, known.get(_name(*group)), limit) for group, keys in by_group.items())
    groups = len(by_group)
    seconds = (seconds + GROUP_SECONDS * groups) / min(processes, groups)
    source = "a guess for two CPU cores; no earlier run stands here" if missing else "by an earlier run recorded here"
    return f"about {span(seconds)} ({source})"


def _seconds(keys: Sequence[Key], known: Mapping[str, float] | None, limit: int) -> float:
    """Of the cases of one group, by the rates of an earlier run; a guess for a part that it does not tell.

    Dense runs in every group, whether it is a case or not; in an earlier run's rates of timings it is counted already.
    """
    known, seconds = known or {}, 0.0
    for part in dict.fromkeys(part for _, part in keys):
        cells = {cell for cell, of in keys if of == part}
        if part == "quality":
            seconds += known.get(PACE, 1.0) * limit * _guess(cells)
        elif part in known:
            seconds += known[part] * len(cells)
        else:
            seconds += TIMING_GUESS[part] * len({*cells, *(cell.dense for cell in cells)})
    return seconds


def _guess(cells: Iterable[Cell]) -> float:
    """Guessed seconds of a sample under the cells of a group, dense among them in any case."""
    return DENSE_GUESS + sum(_share(cell) for cell in cells if cell != cell.dense)


def _share(cell: Cell) -> float:
    """Guessed seconds that a cell adds to a sample of its group."""
    seams = {inherited("methods", step.method, "seam") for step in stored(cell.method, cell.preset)}
    return SHARED_GUESS if seams == {"cache"} else OWN_GUESS


def rates(
    seconds: Mapping[Key, float], limit: int, asked: Mapping[Key, int] | None = None
) -> dict[str, dict[str, float]]:
    """By group: mean seconds of a timing case, and how many times what is guessed for them the quality cases took.

    Seconds of a quality case would tell nothing of another selection, whose cells may share more or less with dense. `asked` says
    how many samples a case had, where that is known: a set may hold fewer than `limit`.
    """
    counts: dict[str, int] = {}
    for (cell, _), count in (asked or {}).items():
        name = _name(cell.model, cell.task)
        counts[name] = max(count, counts.get(name, 0))
    spans: dict[str, dict[str, dict[Cell, float]]] = {}
    for (cell, part), spent in seconds.items():
        spans.setdefault(_name(cell.model, cell.task), {}).setdefault(part, {})[cell] = spent
    return {
        group: dict(_rate(part, spent, counts.get(group) or limit) for part, spent in parts.items())
        for group, parts in spans.items()
    }


def _rate(part: str, spent: Mapping[Cell, float], limit: int) -> tuple[str, float]:
    whole = sum(spent.values())
    if part != "quality":
        return part, whole / len(spent)
    # The first case opened the model; what that takes does not grow with the samples.
    return PACE, max(whole - GROUP_SECONDS, whole / 5) / (limit * _guess(spent))


def _last_rates(runs: Path) -> dict[str, dict[str, float]]:
    """The rates of the largest of the last runs: in a small one, opening the model is most of the time."""
    files = [path for path in runs.glob(f"*/{recorder.FILE}") if path.is_file()]
    known = list[tuple[int, dict[str, dict[str, float]]]]()
    for path in sorted(files, key=os.path.getmtime)[-RUNS:]:
        for one in recorder.read(path.parent):
            samples, rates = one.get("samples", 0), one.get("rates")
            finished = one.get("kind") == "end" and one.get("status") == "finished" and not one.get("reused")
            if finished and isinstance(samples, int) and _are_rates(rates):
                known.append((samples, rates))
    return max(known, key=lambda pair: pair[0], default=(0, {}))[1]


def _are_rates(found: Any) -> TypeGuard[dict[str, dict[str, float]]]:
    """Whether what a file of somebody's says are rates: seconds by part, by group."""
    return isinstance(found, dict) and all(
        isinstance(parts, dict) and all(isinstance(value, int | float) for value in parts.values())
        for parts in found.values()
    )


def _name(model: str, task: str) -> str:
    return f"{model} {task}"


def span(seconds: float) -> str:
    """Seconds as people say them: "12 min"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def show(controller: Run, reporter: Any, exitstatus: int) -> None:
    """The closing lines: the table, what was left out and why, and where the report lies."""
    if controller.recorder is None:
        if exitstatus == 5:
            _nothing_selected(controller.bench, reporter)
        return
    folder = controller.recorder.folder
    reporter.section("effivlm")
    if controller.document is not None:
        reporter.write_line(_table(controller.document))
    for line in _lines(controller):
        reporter.write_line(line)
    for name in ("report.html", "report.json", recorder.FILE):
        if (folder / name).exists():
            reporter.write_line(f"{name}: {folder / name}")


def _table(document: Mapping[str, Any]) -> str:
    try:
        from effivlm.report.terminal import table

        return table(document)
    except Exception as error:
        return f"the table could not be made ({type(error).__name__}: {error})"


def _lines(controller: Run) -> list[str]:
    lines = [f"note: {note}" for note in controller.notes]
    if controller.reused:
        lines.append(f"resumed: {controller.reused} of {len(controller.planned)} outcomes stood already")
    reasons: dict[str, int] = {}
    for reason in controller.passed_over.values():
        reasons[reason] = reasons.get(reason, 0) + 1
    lines += [f"not measured: {count} cases ({reason})" for reason, count in reasons.items()]
    if timed := controller.timed_without_table():
        lines.append(f"{timed} timings stand in report.json and {WITHOUT_TABLE} (it is disabled in this session)")
    return lines


def _nothing_selected(bench: Session, reporter: Any) -> None:
    if not bench.collected:
        return
    plan, option = bench.plan(), bench.config.option
    reporter.section("effivlm")
    reporter.write_line(
        f"no case is left of {bench.collected}: -k {option.keyword!r}, -m {option.markexpr!r}. Case ids are made of:"
    )
    for what in ("model", "method", "task", "keep"):
        names = list(dict.fromkeys(getattr(cell, what) for cell in plan.cells))
        more = f" ... ({len(names) - SHOWN} more)" if len(names) > SHOWN else ""
        reporter.write_line(f"  {what + 's' if what != 'keep' else 'keep'}: {', '.join(names[:SHOWN])}{more}")
