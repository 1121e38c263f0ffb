"""Which numbers have no common mean: those scored, run or weighted in different ways. Such a mix is refused, with a way out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, TypeAlias

Pair: TypeAlias = tuple[str, str]
NAMED = 3


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a number comes from; numbers are averaged only where all three are equal."""

    scoring: str
    engine: str
    weights: str


@cache
def origin(scoring: str, engine: str, weights: str) -> Origin:
    """One object for equal origins, so that thousands of them are compared at once."""
    return Origin(scoring, engine, weights)


class Refused:
    """Collects the means that were not built: one row for each table, scope and kind of mix."""

    def __init__(self) -> None:
        self._rows: dict[tuple[Any, ...], dict[str, str]] = {}

    def admits(self, table: str, scope: Sequence[str], origins: Mapping[Pair, Origin], what: str = "") -> bool:
        """Whether the (model, task) pairs may be averaged; if not, a row says why and what to select instead."""
        first = next(iter(origins.values()))
        if all(one is first or one == first for one in origins.values()):
            return True
        for field in fields(Origin):
            groups: dict[str, list[Pair]] = {}
            for pair, origin in origins.items():
                groups.setdefault(getattr(origin, field.name) or "unnamed", []).append(pair)
            if len(groups) > 1:
                key = (table, what, *scope, field.name, *sorted(groups))
                if key not in self._rows:
                    self._rows[key] = {
                        "table": table,
                        "reason": _reason(field.name, what, groups),
                        "select": _way_out(groups),
                    }
        return False

    def rows(self) -> list[dict[str, str]]:
        return list(self._rows.values())


def _reason(field: str, what: str, groups: Mapping[str, Sequence[Pair]]) -> str:
    place = _telling(groups)
    parts = []
    for value, pairs in sorted(groups.items()):
        names = list(dict.fromkeys(" on ".join(pair) if place is None else pair[place] for pair in pairs))
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        parts.append(f"{value} ({', '.join(names[:NAMED])}{more})")
    return f"{what + ': ' if what else ''}no mean over {field} {' and '.join(parts)}"


def _way_out(groups: Mapping[str, Sequence[Pair]]) -> str:
    """Options that leave the largest group alone."""
    place, pairs = _telling(groups), max(groups.values(), key=len)
    model = pairs[0][0]
    models = dict.fromkeys(model for model, _ in pairs) if place == 0 else {model: None}
    tasks = dict.fromkeys(task for own, task in pairs if place == 1 or own == model)
    options = {0: f"--vlm-models {','.join(models)}", 1: f"--vlm-tasks {','.join(tasks)}"}
    return " ".join(options.values()) if place is None else options[place]


def _telling(groups: Mapping[str, Sequence[Pair]]) -> int | None:
    """0 if the models alone tell the groups apart, 1 if the tasks do (which is preferred), else None."""
    for place in (1, 0):
        names = [{pair[place] for pair in pairs} for pairs in groups.values()]
        if sum(map(len, names)) == len(set.union(*names)):
            return place
    return None
