"""The summary: OP, OG, OL and OE of every setting, on the same (model, task) pairs for all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from effivlm.metrics import summary
from effivlm.metrics.discoveries import detectable, difference_p, effective, spreads
from effivlm.metrics.statistics import Floats, Interval, ends, has_no_width, interval, intervals, quotients
from effivlm.report.cells import DENSE, Row
from effivlm.report.controls import NONE_RAN, OPEN, told
from effivlm.report.costs import SPEEDUPS
from effivlm.report.mixes import Pair, Refused
from effivlm.report.pareto import pareto
from effivlm.report.sets import Compare, Compared, Scope, Setting, Value, setting_of
from effivlm.report.trust import doubts


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
            found = intervals(np.concatenate([draws for _, draws in self._draws]).reshape(len(self._draws), -1).T)
            for (place, _), bounds in zip(self._draws, found, strict=True):
                self._rows[place]["interval"] = ends(_with_width(bounds))
        return self._rows


def _with_width(bounds: Interval | None) -> Interval | None:
    """None where every sample of every pair told the same, of which resamples know nothing."""
    return None if bounds is None or has_no_width(bounds) else bounds


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
    op = op_rows(Compare(by_model, refused, "op"), single, _budgets(rows))
    return {
        "op": op,
        "og": _og(Compare(by_model, refused, "og"), every),
        "ol": _ol(Compare(by_model, refused, "ol"), every, floors),
        "oe": _oe(Compare(by_model, refused, "oe"), every),
        "pareto": pareto(op, rows),
        "refused": refused.rows(),
    }


def _budgets(rows: Sequence[Row]) -> dict[Setting, str]:
    """The control of each setting that has one."""
    return {setting_of(row): row.data["control"]["method"] for row in rows if row.data["control"]}


def op_rows(compare: Compare, scopes: Sequence[Scope], controls: Mapping[Setting, str]) -> list[dict[str, Any]]:
    """`control` is OP minus that of the random row at the same budget and on the same pairs."""
    table = _Table()
    for scope in scopes:
        compared = list(compare([scope], _ratio))
        known = {(one.setting, one.set, frozenset(one.values)): one for one in compared}
        for one in compared:
            found, plain, draws = summary.overall_performance(one.points()), summary.mean(one.points()), one.draws()
            row = {**one.head(), "value": found.value, "mean": plain.value, "n": found.n, "control": None}
            row["detectable"] = None if draws is None else detectable(spreads(_root(draws)[:, None])[0], _groups(one))
            if name := controls.get(one.setting):
                row["control"] = _controlled(one, name, known)
            table.add(row, None if draws is None else _root(draws))
    return table.rows()


def _root(draws: Floats) -> Floats:
    found: Floats = np.sqrt((draws**2).mean(axis=0))
    return found


def _groups(*sides: Compared) -> float:
    """How many groups of samples tell as much of an OP, or of the difference of two, as those of all their pairs."""
    found = [_shares(side) for side in sides]
    apart = found[0] - found[1] if len(found) > 1 else found[0]
    units = [min(side.values[pair].units for side in sides) for pair in sides[0].values]
    return effective([(spread or 0.0) ** 2 for spread in spreads(apart.T)], units)


def _shares(one: Compared) -> Floats:
    """What each pair adds to OP in each resample, (pairs, rounds), as far as OP is linear in it; 0 where nothing is known."""
    draws, points = one.draws(), np.array([one.points()], dtype=np.float64).T
    if draws is None or not points.any():
        return np.zeros((len(points), 1))
    found: Floats = draws * points / (len(points) * _root(points))
    return found


def _controlled(one: Compared, name: str, known: Mapping[Any, Compared]) -> dict[str, Any]:
    _, preset, keep = one.setting
    places = [((name, own, keep), one.set, frozenset(one.values)) for own in (preset, "paper")]
    other = next((known[place] for place in places if place in known), None)
    if other is None:
        numbers = dict.fromkeys(("difference", "interval", "mean_p", "q"))
        return {"method": name, "preset": "", **numbers, "n": 0, "verdict": NONE_RAN}
    own, theirs = (summary.overall_performance(side.points()).value for side in (one, other))
    draws = (one.draws(), other.draws())
    apart = None if draws[0] is None or draws[1] is None else _root(draws[0]) - _root(draws[1])
    bounds = None if apart is None else interval(apart)
    alike = bounds is not None and has_no_width(bounds)
    difference = None if own is None or theirs is None else own - theirs
    spread = None if apart is None or alike else spreads(apart[:, None])[0]
    unlike = sum(value.unlike for value in one.values.values())
    facts = {
        "difference": difference,
        "interval": ends(_with_width(bounds)),
        "mean_p": difference_p(difference, spread, _groups(one, other), unlike),
        "q": None,
        "n": len(one.values),
        "verdict": OPEN if alike else told(bounds),
    }
    return {"method": name, "preset": other.setting[1], **facts}


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
                table.add(row, None if draws is None else _variation(_averages(one.by_model(draws), axis)))
    return table.rows()


def _averages(draws: Sequence[Floats], axis: int) -> Floats:
    """The means of draws by model, each (tasks, rounds), over models (axis 0) or tasks (1)."""
    found: Floats = draws[0] if len(draws) == 1 and axis == 0 else np.stack(draws).mean(axis=axis)
    return found


def _variation(averages: Floats) -> Floats:
    """100 * population deviation / mean along the first axis; NaN where the mean is 0."""
    return quotients(100 * averages.std(axis=0), averages.mean(axis=0))


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
    """Geometric means; the interval is that of the ends of the pairs' intervals, None if any pair has none.

    An untrusted speed-up is in no mean: its pair counts as undefined.
    """
    found = []
    measured = {
        word for rows in compare.by_model.values() for row in rows for word, one in row.data["speedups"].items() if one
    }
    for word in (word for word in SPEEDUPS if word in measured):
        for one in compare(scopes, partial(_speedup, word=word), word):
            known = [value.interval for value in one.values.values() if value.interval is not None]
            bounds = [summary.efficiency(ends_[side] for ends_ in known).value for side in (0, 1)]
            average = summary.efficiency(one.points())
            complete = bounds if len(known) == average.n else None
            found.append({**one.head(), "of": word, "value": average.value, "n": average.n, "interval": complete})
    return found


def _ratio(row: Row) -> Value:
    control = row.data["control"] or {}
    unlike = (control.get("better") or 0) + (control.get("worse") or 0)
    return Value(row.data["ratio"], row.origins["quality"], row.ratio_draws, units=row.data["units"], unlike=unlike)


def _same(row: Row) -> Value:
    return Value((row.data["loyalty"] or {}).get("same"), row.origins["quality"], row.same_draws)


def _speedup(row: Row, word: str) -> Value:
    measured = row.data["speedups"][word]
    if measured is None or doubts(row.data, word):
        return Value(None, row.origins["quality"])
    return Value(measured["value"], row.origins[word], interval=measured["interval"])
