"""Shards of one suite made one run: the answers of all, from their journals, are assembled as those of one run are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from effivlm.records import Answer, Cell, Outcome, Settings
from effivlm.report.document import INTERRUPTED
from effivlm.report.merge import Joined, Run
from effivlm.run.sharding import lacking, waits
from effivlm.session.beside import parted
from effivlm.session.journal import Journal, take_in

if TYPE_CHECKING:
    from effivlm.run.gave import Asked

SHOWN = 5


def join(runs: Sequence[Run]) -> Joined:
    """The quality outcomes of the whole suite from its shards, and what they lack. Needs what runs cells, but no model.

    Raises:
        ValueError: two shards disagree about what was measured, or gave one sample different answers.
    """
    journals = [Journal(run.folder, 0) for run in runs]
    absent = [f"shard {name}" for name in lacking(run.shard for run in runs)]
    why = f"{', '.join(absent)} {'is' if len(absent) == 1 else 'are'} missing" if absent else ""
    made: list[Outcome] = []
    for cells in [part for group in _groups(runs) for part in _parts(group)]:
        names = _names(cells, runs)
        told = [cell for cell in cells if cell in names]
        found = [journal.stored(names) for journal in journals] if told else []
        how = _alike([one for journal in journals if (one := journal.how(cells[0]))], cells)
        if not how:
            made += [_ended(cell, runs) or _missing(cell, names, why or "no answer was stored") for cell in cells]
            continue
        made += [_missing(cell, names, "no shard got to it") for cell in cells if cell not in names]
        made += _assembled(told, names, _together(found, runs), how[-1], runs[0], why)
    return Joined({(outcome.cell, "quality"): outcome for outcome in made}, why)


def _groups(runs: Sequence[Run]) -> list[list[Cell]]:
    """The cells of each (model, task) that any shard was to answer."""
    found: dict[tuple[str, str], dict[Cell, None]] = {}
    for run in runs:
        for cell, part in run.latest:
            if part == "quality":
                found.setdefault(cell.group, {})[cell] = None
    return [list(cells) for cells in found.values()]


def _parts(cells: Sequence[Cell]) -> Iterable[list[Cell]]:
    own, changed = parted(cells)
    return own, *changed


def _alike(how: Sequence[Mapping[str, Any]], cells: Sequence[Cell]) -> Sequence[Mapping[str, Any]]:
    """How shards ran cells, if all did so on one checkpoint; ValueError where methods made different ones of a model."""
    weighed = [_counted(one) for one in how]
    if other := [one for one in weighed if one != weighed[0]]:
        raise ValueError(
            f"{cells[0].id}: shards answered with different checkpoints ({weighed[0]} and {other[0]}): let them share one folder"
            " of products"
        )
    return how


def _counted(how: Mapping[str, Any]) -> dict[str, Any]:
    """What was counted on the checkpoint that answered, and all that decided it, but not how long one machine took over it."""
    weighed = how.get("weighed") or {}
    return {**weighed, "product": (weighed.get("product") or {}).get("fingerprint", "")}


def _ended(cell: Cell, runs: Sequence[Run]) -> Outcome | None:
    """What became of a cell that no shard could ask anything, the same for all of it."""
    for run in runs:
        found = run.latest.get((cell, "quality"))
        if found and found.status in ("failed", "unsupported") and found.reason != waits(run.shard):
            return found
    return None


def _names(cells: Iterable[Cell], runs: Sequence[Run]) -> dict[Cell, str]:
    """The fingerprint of each cell, which all shards must share; a cell that none of them got to is absent."""
    names: dict[Cell, str] = {}
    owner: dict[Cell, Run] = {}
    for cell in cells:
        for run in runs:
            outcome = run.latest.get((cell, "quality"))
            if outcome is None or not outcome.fingerprint:
                continue
            known = names.setdefault(cell, outcome.fingerprint)
            other = owner.setdefault(cell, run)
            if known != outcome.fingerprint:
                raise ValueError(
                    f"{cell.id} was measured in {other.folder} and in {run.folder} under different fingerprints:"
                    " shards of one suite need the same options, weights, code and versions of libraries"
                )
    return names


def _together(found: Sequence[Mapping[int, Asked]], runs: Sequence[Run]) -> dict[int, Asked]:
    """What all shards gave, by sample number; ValueError where two of them gave one sample different answers."""
    whole: dict[int, Asked] = {}
    owner: dict[int, Run] = {}
    for run, stored in zip(runs, found, strict=True):
        for number, new in stored.items():
            old, other = whole.get(number), owner.setdefault(number, run)
            for cell in set(new.answers) & set(old.answers if old else ()):
                if old and _said(new.answers[cell]) != _said(old.answers[cell]):
                    raise ValueError(
                        f"{cell.id}: sample {number} has different answers in {other.folder} and in {run.folder}:"
                        " leave one of them out"
                    )
            take_in(whole, number, new)
    return whole


def _said(answer: Answer) -> Answer:
    """An answer without what two machines round differently."""
    return replace(answer, kl=None)


def _assembled(
    cells: Sequence[Cell],
    names: Mapping[Cell, str],
    stored: Mapping[int, Asked],
    how: Mapping[str, Any],
    run: Run,
    why: str,
) -> list[Outcome]:
    from effivlm.run.assembling import assembled

    source = (run.header.get("models") or {}).get(cells[0].model) or {}
    made, missing = assembled(cells, settings_of(run), str(source.get("family", "")), names, stored, how)
    if not missing:
        return made
    few = ", ".join(map(str, missing[:SHOWN])) + (", ..." if len(missing) > SHOWN else "")
    said = f"{len(missing)} of {how['total']} samples have no answer (numbers {few})"
    return [_missing(cell, names, f"{said}: {why}" if why else said) for cell in cells]


def _missing(cell: Cell, names: Mapping[Cell, str], reason: str) -> Outcome:
    return Outcome(cell, names.get(cell, ""), INTERRUPTED, reason=reason)


def settings_of(run: Run) -> Settings:
    """What was asked for in a run, as if it were no shard."""
    known = {field.name for field in fields(Settings)}
    stored = {name: value for name, value in (run.header.get("settings") or {}).items() if name in known}
    return replace(Settings(**stored), shard="")
