"""The summary: OP, OG, OL and OE of every setting, on the same (model, task) pairs for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from effivlm.metrics import summary
from effivlm.metrics.statistics import Floats, Interval, ends, intervals
from effivlm.report.cells import DENSE, Row
from effivlm.report.costs import SPEEDUPS
from effivlm.report.pareto import pareto

Setting: TypeAlias = tuple[str, str, float]
Pair: TypeAlias = tuple[str, str]
Nested: TypeAlias = dict[str, dict[str, float | None]]


@dataclass(frozen=True, slots=True)
class Value:
    """One cell's contribution to a table."""

    point: float | None
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

    def nested(self) -> Nested:
        by_model: Nested = {}
        for (model, task), value in self.values.items():
            by_model.setdefault(model, {})[task] = value.point
        return by_model

    def draws(self) -> Floats | None:
        """The bootstrap draws of all pairs, (pairs, rounds); None if any pair has none."""
        draws = [value.draws for value in self.values.values() if value.draws is not None]
        return np.stack(draws) if draws and len(draws) == len(self.values) else None

    def by_model(self, draws: Floats) -> list[Floats]:
        """`draws` split by model, each (tasks, rounds)."""
        models = np.array([model for model, _ in self.values])
        return [draws[models == model] for model in dict.fromkeys(models.tolist())]


class _Table:
    """Rows whose bootstrap intervals are found together, in one pass over all draws."""

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []
        self._draws: list[tuple[int, Floats]] = []

    def add(self, row: dict[str, Any], draws: Floats | None) -> None:
        if draws is not None:
            self._draws.append((len(self._rows), draws))
        self._rows.append({**row, "interval": None})

    def rows(self) -> list[dict[str, Any]]:
        if self._draws:
            found = intervals(np.stack([draws for _, draws in self._draws], axis=1))
            for (place, _), interval in zip(self._draws, found, strict=True):
                self._rows[place]["interval"] = ends(interval)
        return self._rows


def summarise(rows: Sequence[Row]) -> dict[str, list[dict[str, Any]]]:
    """Rows of the five tables; each names its models, tasks, setting, value, n, interval and which set of pairs it
    used.

    `set` is "common" (the largest set of pairs that every setting has) or "own" (all pairs of this setting, where that
    is more). A pair without a value (dense scored 0; free-form answers in OL) is in no set: `undefined` counts those of
    the setting.
    """
    rows = [row for row in rows if row.data["method"] != DENSE]
    models = list(dict.fromkeys(row.data["model"] for row in rows))
    single = [(model,) for model in models]
    every = [*single, tuple(models)] if len(models) > 1 else single
    op = _op(rows, single)
    return {
        "op": op,
        "og": _og(rows, every),
        "ol": _ol(rows, every),
        "oe": _oe(rows, every),
        "pareto": pareto(op, rows),
    }


def _op(rows: Sequence[Row], scopes: Sequence[tuple[str, ...]]) -> list[dict[str, Any]]:
    table = _Table()
    for one in _compared(rows, scopes, lambda row: Value(row.data["ratio"], row.ratio_draws)):
        found, plain, draws = summary.overall_performance(one.points()), summary.mean(one.points()), one.draws()
        row = {**one.head(), "value": found.value, "mean": plain.value, "n": found.n}
        table.add(row, None if draws is None else np.sqrt((draws**2).mean(axis=0)))
    return table.rows()


def _og(rows: Sequence[Row], scopes: Sequence[tuple[str, ...]]) -> list[dict[str, Any]]:
    """Spread over tasks and, of several models, over models; with fewer than two of them there is no row."""
    table = _Table()
    for one in _compared(rows, scopes, lambda row: Value(row.data["ratio"], row.ratio_draws)):
        nested = one.nested()
        even = len({tuple(ratios) for ratios in nested.values()}) == 1
        draws = one.draws() if even else None
        for over, axis, define in (
            ("tasks", 0, summary.generalization),
            ("models", 1, summary.generalization_across_models),
        ):
            found = define(nested)
            if found.value is not None:
                row = {**one.head(), "over": over, "value": found.value, "n": found.n}
                table.add(row, None if draws is None else _spread(np.stack(one.by_model(draws)).mean(axis=axis)))
    return table.rows()


def _spread(averages: Floats) -> Floats:
    """100 * population deviation / mean along the first axis; NaN where the mean is 0."""
    centre = averages.mean(axis=0)
    spread: Floats = np.divide(100 * averages.std(axis=0), centre, out=np.full_like(centre, np.nan), where=centre > 0)
    return spread


def _ol(rows: Sequence[Row], scopes: Sequence[tuple[str, ...]]) -> list[dict[str, Any]]:
    table = _Table()
    for one in _compared(rows, scopes, lambda row: Value((row.data["loyalty"] or {}).get("same"), row.same_draws)):
        found, draws = summary.loyalty(one.nested()), one.draws()
        averages = None if draws is None else np.stack([part.mean(axis=0) for part in one.by_model(draws)]).mean(axis=0)
        table.add({**one.head(), "value": found.value, "n": found.n}, averages)
    return table.rows()


def _oe(rows: Sequence[Row], scopes: Sequence[tuple[str, ...]]) -> list[dict[str, Any]]:
    """Geometric means; the interval is that of the ends of the pairs' intervals, None if any pair has none."""
    found = []
    for word in SPEEDUPS:
        for one in _compared(rows, scopes, lambda row, word=word: _speedup(row, word)):  # type: ignore[misc]
            known = [value.interval for value in one.values.values() if value.interval is not None]
            bounds = [summary.efficiency(interval[side] for interval in known).value for side in (0, 1)]
            average = summary.efficiency(one.points())
            interval = bounds if len(known) == average.n else None
            found.append({**one.head(), "of": word, "value": average.value, "n": average.n, "interval": interval})
    return found


def _speedup(row: Row, word: str) -> Value:
    measured = row.data["speedups"][word]
    return Value(measured["value"], interval=measured["interval"]) if measured else Value(None)


def _compared(
    rows: Sequence[Row], scopes: Sequence[tuple[str, ...]], pick: Callable[[Row], Value]
) -> Iterator[Compared]:
    for scope in scopes:
        values: dict[Setting, dict[Pair, Value]] = {}
        undefined: dict[Setting, int] = {}
        for row in rows:
            if row.data["model"] not in scope:
                continue
            setting = (row.data["method"], row.data["preset"], row.data["keep"])
            value = pick(row)
            if value.point is None:
                undefined[setting] = undefined.get(setting, 0) + 1
            else:
                values.setdefault(setting, {})[row.data["model"], row.data["task"]] = value
        common = set.intersection(*map(set, values.values())) if values else set()
        for setting, own in values.items():
            if common:
                yield Compared(
                    setting, "common", undefined.get(setting, 0), {pair: own[pair] for pair in own if pair in common}
                )
            if len(own) > len(common):
                yield Compared(setting, "own", undefined.get(setting, 0), own)
