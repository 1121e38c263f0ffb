"""Settings that are compared on the same (model, task) pairs, or on their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from effivlm.metrics.statistics import Floats, Interval
from effivlm.report.cells import Row
from effivlm.report.mixes import Origin, Pair, Refused

Setting: TypeAlias = tuple[str, str, float]
Scope: TypeAlias = tuple[str, ...]
Nested: TypeAlias = dict[str, dict[str, float | None]]


@dataclass(frozen=True, slots=True)
class Value:
    """One cell's contribution to a table; over `units` groups of samples, of which `unlike` tell it from its control."""

    point: float | None
    origin: Origin
    draws: Floats | None = None
    interval: Interval | None = None
    units: int = 0
    unlike: int = 0


Entry: TypeAlias = tuple[Setting, Pair, Value]


@dataclass(frozen=True, slots=True)
class Compared:
    """One setting on one set of (model, task) pairs; every pair has a point."""

    setting: Setting
    set: str
    undefined: int
    values: dict[Pair, Value]

    def head(self) -> dict[str, Any]:
        method, preset, keep = self.setting
        return {
            "models": list(dict.fromkeys(model for model, _ in self.values)),
            "tasks": list(dict.fromkeys(task for _, task in self.values)),
            "method": method,
            "preset": preset,
            "keep": keep,
            "set": self.set,
            "undefined": self.undefined,
        }

    def points(self) -> list[float | None]:
        return [value.point for value in self.values.values()]

    def nested(self, others: Mapping[Pair, float | None] | None = None) -> Nested:
        """The points, or `others` in their place, by model and task."""
        by_model: Nested = {}
        for (model, task), value in self.values.items():
            by_model.setdefault(model, {})[task] = others[model, task] if others is not None else value.point
        return by_model

    def draws(self) -> Floats | None:
        """The bootstrap draws of all pairs, (pairs, rounds); None if any pair has none."""
        draws = [value.draws for value in self.values.values() if value.draws is not None]
        complete = draws and len(draws) == len(self.values)
        return np.concatenate(draws).reshape(len(draws), -1) if complete else None  # as np.stack, in half the time

    def by_model(self, draws: Floats) -> list[Floats]:
        """`draws` split by model, each (tasks, rounds)."""
        if len({model for model, _ in self.values}) == 1:
            return [draws]
        models = np.array([model for model, _ in self.values])
        return [draws[models == model] for model in dict.fromkeys(models.tolist())]


def setting_of(row: Row) -> Setting:
    return (row.data["method"], row.data["preset"], row.data["keep"])


@dataclass(frozen=True, slots=True)
class Compare:
    """Settings on the pairs that all of them have, and on their own; what mixes origins goes to `refused`."""

    by_model: Mapping[str, Sequence[Row]]
    refused: Refused
    table: str
    _known: dict[tuple[str, str], list[Entry]] = field(default_factory=dict)

    def __call__(self, scopes: Sequence[Scope], pick: Callable[[Row], Value], what: str = "") -> Iterator[Compared]:
        """`pick` is one and the same for one `what`."""
        for scope in scopes:
            for one in self._sets([entry for model in scope for entry in self._entries(model, pick, what)]):
                origins = {pair: value.origin for pair, value in one.values.items()}
                if self.refused.admits(self.table, scope, origins, what):
                    yield one

    def _entries(self, model: str, pick: Callable[[Row], Value], what: str) -> list[Entry]:
        """A model's cells as they are compared; found once, because a scope of several models takes them again."""
        if (model, what) not in self._known:
            rows = self.by_model[model]
            self._known[model, what] = [(setting_of(row), (model, row.data["task"]), pick(row)) for row in rows]
        return self._known[model, what]

    @staticmethod
    def _sets(entries: Sequence[Entry]) -> Iterator[Compared]:
        values: dict[Setting, dict[Pair, Value]] = {}
        undefined: dict[Setting, int] = {}
        for setting, pair, value in entries:
            if value.point is None:
                undefined[setting] = undefined.get(setting, 0) + 1
            else:
                values.setdefault(setting, {})[pair] = value
        common = set.intersection(*map(set, values.values())) if values else set()
        for setting, own in values.items():
            missing = undefined.get(setting, 0)
            if common:
                yield Compared(setting, "common", missing, {pair: own[pair] for pair in own if pair in common})
            if len(own) > len(common):
                yield Compared(setting, "own", missing, own)
