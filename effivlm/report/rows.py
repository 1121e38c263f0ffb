"""The summary: OP, OG, OL and OE of every setting, on the same (model, task) pairs for all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from effivlm.metrics import summary
from effivlm.metrics.statistics import Floats, ends, intervals
from effivlm.report.cells import DENSE, Row
from effivlm.report.costs import SPEEDUPS
from effivlm.report.mixes import Pair, Refused
from effivlm.report.pareto import pareto
from effivlm.report.sets import Compare, Scope, Value, setting_of


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
            found = intervals(np.stack([draws for _, draws in self._draws]).T)
            for (place, _), interval in zip(self._draws, found, strict=True):
                self._rows[place]["interval"] = ends(interval)
        return self._rows


def summarise(rows: Sequence[Row]) -> dict[str, list[dict[str, Any]]]:
    """Rows of the five tables; each names its models, tasks, setting, value, n, interval and which set of pairs it
    used. A sixth list, `refused`, names the means that were not built and what to select for one.

    `set` is "common" (the largest set of pairs that every setting has) or "own" (all pairs of this setting, where that
    is more). A pair without a value (dense scored 0; free-form answers in OL) is in no set: `undefined` counts those of
    the setting.
    """
    floors = {(row.data["model"], row.data["task"]): row.data["noise"]["same"] for row in rows if row.data["noise"]}
    rows = [row for row in rows if row.data["method"] != DENSE]
    by_model: dict[str, list[Row]] = {}
    for row in rows:
        by_model.setdefault(row.data["model"], []).append(row)
    single = [(model,) for model in by_model]
    every = [*single, tuple(by_model)] if len(by_model) > 1 else single
    refused = Refused()
    op = _op(Compare(by_model, refused, "op"), single)
    return {
        "op": op,
        "og": _og(Compare(by_model, refused, "og"), every),
        "ol": _ol(Compare(by_model, refused, "ol"), every, floors),
        "oe": _oe(Compare(by_model, refused, "oe"), every),
        "pareto": pareto(op, rows),
        "refused": refused.rows(),
    }


def _op(compare: Compare, scopes: Sequence[Scope]) -> list[dict[str, Any]]:
    table = _Table()
    for one in compare(scopes, _ratio):
        found, plain, draws = summary.overall_performance(one.points()), summary.mean(one.points()), one.draws()
        row = {**one.head(), "value": found.value, "mean": plain.value, "n": found.n}
        table.add(row, None if draws is None else np.sqrt((draws**2).mean(axis=0)))
    return table.rows()


def _og(compare: Compare, scopes: Sequence[Scope]) -> list[dict[str, Any]]:
    """Spread over tasks and, of several models, over models; with fewer than two of them there is no row."""
    table = _Table()
    for one in compare(scopes, _ratio):
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


def _ol(compare: Compare, scopes: Sequence[Scope], floors: Mapping[Pair, float | None]) -> list[dict[str, Any]]:
    """`noise` is the same mean of dense against dense; `free` counts the free-form pairs, which have no same answer."""
    table = _Table()
    for scope in scopes:
        free = Counter(
            setting_of(cell)
            for model in scope
            for cell in compare.by_model[model]
            if cell.data["answer_type"] == "free"
        )
        for one in compare([scope], _same):
            found, draws = summary.loyalty(one.nested()), one.draws()
            parts = None if draws is None else [part.mean(axis=0) for part in one.by_model(draws)]
            floor = summary.loyalty(one.nested({pair: floors.get(pair) for pair in one.values}))
            row = {
                **one.head(),
                "value": found.value,
                "n": found.n,
                "noise": None if floor.missing else floor.value,
                "free": free[one.setting],
            }
            table.add(row, None if parts is None else np.stack(parts).mean(axis=0))
    return table.rows()


def _oe(compare: Compare, scopes: Sequence[Scope]) -> list[dict[str, Any]]:
    """Geometric means; the interval is that of the ends of the pairs' intervals, None if any pair has none."""
    found = []
    for word in SPEEDUPS:
        for one in compare(scopes, partial(_speedup, word=word), word):
            known = [value.interval for value in one.values.values() if value.interval is not None]
            bounds = [summary.efficiency(interval[side] for interval in known).value for side in (0, 1)]
            average = summary.efficiency(one.points())
            interval = bounds if len(known) == average.n else None
            found.append({**one.head(), "of": word, "value": average.value, "n": average.n, "interval": interval})
    return found


def _ratio(row: Row) -> Value:
    return Value(row.data["ratio"], row.origins["quality"], row.ratio_draws)


def _same(row: Row) -> Value:
    return Value((row.data["loyalty"] or {}).get("same"), row.origins["quality"], row.same_draws)


def _speedup(row: Row, word: str) -> Value:
    measured = row.data["speedups"][word]
    if measured is None:
        return Value(None, row.origins["quality"])
    return Value(measured["value"], row.origins[word], interval=measured["interval"])
