"""Loyalty of the cells of one (model, task): how far they answer as dense does, and the noise under it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Any, TypeVar

import numpy as np

from effivlm.metrics import agreement
from effivlm.metrics.same import CLOSED, label, same
from effivlm.metrics.statistics import Floats, Interval, column_means, ends
from effivlm.records import Answer, Outcome

T = TypeVar("T")
Column = Sequence[Answer | None]
_NAMES = ("score", "same_as_dense", "exact_as_dense", "common_prefix_tokens", "forced")
_STORED = attrgetter(*_NAMES)
_TOKEN_LEVEL = ("prefix", "forced", "kl")


@dataclass(frozen=True, slots=True)
class Table:
    """What the answers of one (model, task) hold, samples x cells; NaN is no value here and never leaves the report's arrays.

    A free-form answer is never the same as another, or different from it: it has no `same`.
    """

    columns: Sequence[Column]
    scores: Floats
    same: Floats
    exact: Floats
    common: Floats
    forced: Floats

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], columns: Sequence[Column]) -> Table:
        values = np.full((len(columns), len(columns[0]), len(_NAMES)), np.nan)
        for place, column in enumerate(columns):
            there = [answer is not None for answer in column]
            rows = slice(None) if all(there) else there
            known = map(_STORED, (answer for answer in column if answer is not None))
            for number, found in enumerate(zip(*known, strict=True)):
                if found.count(None) < len(found):  # many runs ask for no more than some of them
                    values[place, rows, number] = found
        values[[place for place, outcome in enumerate(outcomes) if outcome.answer_type == "free"], :, 1] = np.nan
        scores, same_, exact, common, forced = values.transpose(2, 1, 0)
        return cls(columns, scores, same_, exact, common, forced)


def loyalties(
    outcomes: Sequence[Outcome],
    table: Table,
    dense: int | None,
    intervals: Sequence[Interval | None],
    kls: Sequence[dict[str, Any] | None],
) -> list[dict[str, Any] | None]:
    """Loyalty of every cell, None for dense itself and where nothing is known; `intervals` are those of `same`, `kls` what
    `divergences` finds.

    With random weights only what is compared token by token counts. What needs dense's own answers is None without them.
    """
    counted = np.where(np.isnan(table.same), table.exact, table.same)
    n: list[int] = np.count_nonzero(~np.isnan(counted), axis=0).tolist()
    alike = column_means(table.same)
    averages: dict[str, Sequence[Any]] = {
        "same": alike,
        "exact": column_means(table.exact),
        "forced": column_means(table.forced),
        "kl": kls,
        **_against(table, dense, counted),
        "kappa": [None] * len(outcomes) if dense is None else _kappas(outcomes, table, dense, alike),
    }
    found: list[dict[str, Any] | None] = []
    for place, outcome in enumerate(outcomes):
        one = {name: values[place] for name, values in averages.items()}
        if outcome.weights == "random":
            one = {name: value if name in _TOKEN_LEVEL else None for name, value in one.items()}
        known = place != dense and any(one[name] is not None for name in ("same", "exact", *_TOKEN_LEVEL))
        interval = ends(intervals[place]) if one["same"] is not None else None
        found.append({**one, "interval": interval, "n": n[place]} if known else None)
    return found


def noise(outcome: Outcome) -> dict[str, Any] | None:
    """Dense against dense under a harmless numeric change: the floor of loyalty; None if it was not run twice."""
    pairs = [(answer, answer.again) for answer in outcome.answers if answer.again is not None]
    if not pairs:
        return None
    trained = outcome.weights != "random"
    exact = [float(answer.text == again) for answer, again in pairs]
    soft = [agreement.rouge_l(again, answer.text) for answer, again in pairs]
    closed = outcome.answer_type != "free"
    alike = [float(closed and same(outcome.answer_type, again, answer.text)) for answer, again in pairs]
    tokens = [(answer.tokens, answer.again_tokens) for answer, _ in pairs]
    common, own, dense = (
        np.array(counts, dtype=np.float64)
        for counts in zip(*((agreement.common_prefix(b, a), len(b), len(a)) for a, b in tokens), strict=True)
    )
    forced = [answer.forced for answer, _ in pairs if answer.forced is not None]
    return {
        "same": _mean(alike) if closed and trained else None,
        "exact": _mean(exact) if trained else None,
        "soft": _mean(soft) if trained else None,
        "prefix": float(agreement.prefix_share(common, own, dense).mean()) if any(a for a, _ in tokens) else None,
        "forced": _mean(forced) if forced else None,
        "n": len(pairs),
        "change": outcome.change,
    }


def _against(table: Table, dense: int | None, counted: Floats) -> dict[str, Sequence[Any]]:
    """What takes dense's answers beside a cell's own: by name, a value for each cell."""
    nothing = [None] * len(table.columns)
    if dense is None:
        return dict.fromkeys(("score_agreement", "soft", "prefix", "flips"), nothing)
    reference = table.columns[dense]
    theirs = table.scores[:, [dense]]
    return {
        "score_agreement": [
            None if apart is None else 1 - apart for apart in column_means(np.abs(table.scores - theirs))
        ],
        "soft": column_means(_soft(table, reference)),
        "prefix": column_means(_prefix(table, reference)),
        "flips": agreement.flips(table.scores, np.broadcast_to(theirs, table.scores.shape), counted),
    }


def _soft(table: Table, reference: Column) -> Floats:
    """ROUGE-L F1 of every answer against dense's; many cells give the same text, which is compared once."""
    found = np.where(table.exact == 1, 1.0, np.nan)
    near = [None if one is None else _Remembered(partial(agreement.rouge_l, reference=one.text)) for one in reference]
    places, cells = np.nonzero(table.exact == 0)
    pairs = (
        (near[place], table.columns[cell][place]) for place, cell in zip(places.tolist(), cells.tolist(), strict=True)
    )
    found[places, cells] = [math.nan if known is None or one is None else known[one.text] for known, one in pairs]
    return found


def _prefix(table: Table, reference: Column) -> Floats:
    """Share of dense's tokens in the common prefix; an empty dense answer is matched by an empty one alone."""
    dense = np.array([[0.0 if answer is None else len(answer.tokens)] for answer in reference])
    own = np.ones_like(table.common)
    compared = ~np.isnan(table.common).all(axis=1)
    for place in np.flatnonzero((dense[:, 0] == 0) & compared).tolist():
        answers = [column[place] for column in table.columns]
        own[place] = [0 if answer is None else len(answer.tokens) for answer in answers]
    return agreement.prefix_share(table.common, own, np.broadcast_to(dense, table.common.shape))


def _kappas(outcomes: Sequence[Outcome], table: Table, dense: int, alike: Sequence[float | None]) -> list[float | None]:
    """Of the shares of same answers, by the labels of both sides; options by their text have no label here, but are same."""
    answer_type = outcomes[dense].answer_type
    if answer_type not in CLOSED:
        return [None] * len(outcomes)
    labels = _Remembered(partial(label, answer_type))
    reference = [None if answer is None else labels[answer.text] for answer in table.columns[dense]]
    found: list[float | None] = []
    for place, column in enumerate(table.columns):
        known = np.isfinite(table.same[:, place]).tolist()
        own = [labels[answer.text] for answer, told in zip(column, known, strict=True) if told and answer is not None]
        others = [other for other, told in zip(reference, known, strict=True) if told and other is not None]
        share = alike[place] if own and others else None
        found.append(None if share is None else agreement.kappa(share, agreement.chance(own, others)))
    return found


class _Remembered(dict[str, T]):
    """What `find` says of a text, asked once for each text."""

    def __init__(self, find: Callable[[str], T]) -> None:
        self._find = find

    def __missing__(self, text: str) -> T:
        self[text] = value = self._find(text)
        return value


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
