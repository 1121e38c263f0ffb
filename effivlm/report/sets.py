"""Settings that are compared on the same (model, task) pairs, or on their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
    """One cell's contribution to a table."""

    point: float | None
    origin: Origin
    draws: Floats | None = None
    interval: Interval | None = None


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
        return np.stack(draws) if draws and len(draws) == len(self.values) else None

    def by_model(self, draws: Floats) -> list[Floats]:
        """`draws` split by model, each (tasks, rounds)."""
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

    def __call__(self, scopes: Sequence[Scope], pick: Callable[[Row], Value], what: str = "") -> Iterator[Compared]:
        for scope in scopes:
            for one in self._sets(self._of(scope), pick):
                origins = {pair: value.origin for pair, value in one.values.items()}
                if self.refused.admits(self.table, scope, origins, what):
                    yield one

    def _of(self, scope: Scope) -> Sequence[Row]:
        return [row for model in scope for row in self.by_model[model]]

    @staticmethod
    def _sets(rows: Sequence[Row], pick: Callable[[Row], Value]) -> Iterator[Compared]:
        values: dict[Setting, dict[Pair, Value]] = {}
        undefined: dict[Setting, int] = {}
        for row in rows:
            setting, value = setting_of(row), pick(row)
            if value.point is None:
                undefined[setting] = undefined.get(setting, 0) + 1
            else:
                values.setdefault(setting, {})[row.data["model"], row.data["task"]] = value
        common = set.intersection(*map(set, values.values())) if values else set()
        for setting, own in values.items():
            missing = undefined.get(setting, 0)
            if common:
                yield Compared(setting, "common", missing, {pair: own[pair] for pair in own if pair in common})
            if len(own) > len(common):
                yield Compared(setting, "own", missing, own)
