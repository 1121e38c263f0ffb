"""How a session's record begins and ends, whoever runs its cases: pytest, or a cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from effivlm import registry
from effivlm.models._sources import unread
from effivlm.records import Cell, Outcome, Settings
from effivlm.session import blocks, journal
from effivlm.session.matrix import Plan
from effivlm.session.recorder import FILE, Key, Recorder
from effivlm.session.resume import standing

WORTH_SAYING = 1 << 32  # bytes that take a while
Say = Callable[[str], None]


def task_versions(cells: Iterable[Cell]) -> dict[str, int]:
    """Versions of the tasks: scores of two versions are never compared."""
    return {task: task_version(task) for task in sorted({cell.task for cell in cells})}


def task_version(task: str) -> int:
    """The version that a task declares; 1 for a user's folder, whose content stands in its outcomes' fingerprints."""
    if task not in registry.names("tasks"):
        return 1
    return int(registry.declared("tasks", task).get("version", 1))


def identities(plan: Plan, planned: Sequence[Key], say: Say) -> dict[str, str]:
    """Identities of the models of a session; read here once, before workers ask for them. ValueError where one cannot be read."""
    found: dict[str, str] = {}
    for name in dict.fromkeys(cell.model for cell, _ in planned):
        source = plan.sources.get(name)  # a cell that somebody added may name a model of nobody
        try:
            if source and (size := unread(source)) >= WORTH_SAYING:
                say(f"effivlm: reading {size / 1e9:.1f} GB of {name} once, to know these weights again")
            found |= {name: source.identity} if source else {}
        except OSError as error:
            raise ValueError(f"model {name!r} cannot be read: {error}") from None
    return found


def go_on(
    recorder: Recorder, plan: Plan, settings: Settings, header: dict[str, Any], planned: Sequence[Key], say: Say
) -> int:
    """Take over what stands of an earlier session, note in the header what does not; how many planned outcomes stand."""
    found = standing(recorder.folder, plan, settings, header)
    recorder.recorded = dict(found.reusable)
    header["outdated"] = list(found.outdated)
    reused = sum(key in recorder.recorded for key in planned)
    say(f"effivlm: resuming: {reused} of {len(planned)} outcomes of {recorder.folder} stand and are not run again")
    for reason, count in Counter(one["reason"] for one in found.outdated).items():
        say(f"effivlm: resuming: {count} outcomes do not count any more: {reason}")
    return reused


def begin(recorder: Recorder, header: Mapping[str, Any], session: str) -> None:
    """Write the header; from here on the workers of a session of that name may help each other."""
    recorder.open(header)
    blocks.clear(recorder.folder)
    blocks.place(recorder.folder, session).mkdir()
    for line in journal.lines(recorder.folder):  # what a kill kept from being written behind its outcomes
        for note in line.get("notes", ()):
            recorder.add_sample(note)


def end(
    recorder: Recorder,
    planned: Sequence[Key],
    passed_over: Collection[Key],
    stopped: str,
    why: str,
    lost: str,
    shard: str,
    said: Mapping[str, Any],
) -> None:
    """Write what was not run, and the end line with all that is `said`.

    `stopped` says why a session was, `why` why cases have not run, `lost` what was lost on the way though all have. The answers
    of a run that is whole stand in its outcomes, and their journals go; a shard's are what it was run for.
    """
    missing = [key for key in planned if key not in recorder.recorded and key not in passed_over]
    why = why or "the session ended early"
    for cell, part in missing:
        recorder.add(Outcome(cell, "", "interrupted", part=part, reason=why))
    cut = bool(missing or stopped)
    asked = {key: outcome.n + outcome.broken for key, outcome in recorder.recorded.items() if key[1] == "quality"}
    recorder.close(
        {
            "status": "interrupted" if cut else "finished",
            "reason": why if cut else lost,
            "samples": sum(asked.get(key, 1) for key in planned),
            "not_run": len(missing),
            "passed_over": len(passed_over),
            **said,
        }
    )
    if not cut:
        blocks.clear(recorder.folder)
    if not cut and not shard:
        journal.clear(recorder.folder)


def refuse_old(folder: Path) -> None:
    """ValueError where a folder holds a run."""
    if (folder / FILE).exists():
        raise ValueError(f"{folder} holds a run already; go on with --vlm-resume, or name another folder")
