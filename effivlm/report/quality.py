"""Quality within one (model, task): intervals, ratios to dense, paired tests and loyalty of its cells."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from effivlm.metrics.statistics import Floats, Interval, column_means, ends, intervals, means, sign_p, weights
from effivlm.records import Answer, Outcome

RANDOM_WEIGHTS = "random weights: times and bytes count, scores and loyalty do not"
NOT_A_MEAN = "the score is no mean over samples, so it carries no bootstrap interval"


@dataclass(frozen=True, slots=True)
class Quality:
    """One cell against dense on the same samples; the bootstrap draws are kept for the intervals of the summary."""

    interval: Interval | None = None
    ratio: float | None = None
    ratio_interval: Interval | None = None
    paired: dict[str, Any] | None = None
    loyalty: dict[str, Any] | None = None
    remarks: tuple[str, ...] = ()
    ratio_draws: Floats | None = None
    same_draws: Floats | None = None


def compare(outcomes: Sequence[Outcome], dense: Outcome | None) -> list[Quality]:
    """Compare the quality outcomes of one (model, task) with `dense`, which is one of them, or None if it was not
    measured.

    All cells share one seeded set of resamples, so differences and ratios are paired; other groups draw their own.
    """
    lead = [dense] if dense else list(outcomes[:1])
    ids = list(dict.fromkeys(answer.id for outcome in (*lead, *outcomes) for answer in outcome.answers))
    if not ids:
        return [Quality(ratio=_ratio(outcome, dense)) for outcome in outcomes]
    table = _Table.of(outcomes, ids)
    resamples = weights(len(ids), [zlib.crc32("\0".join(lead[0].cell.group).encode())])
    draws, same_draws = means(resamples, table.scores), means(resamples, table.same)
    pairs = _Pairs.of(resamples, table.scores, draws, outcomes.index(dense)) if dense else None
    score_intervals, same_intervals = intervals(draws), intervals(same_draws)
    several = len(ids) > 1  # the bootstrap of one sample knows nothing
    found = []
    for place, outcome in enumerate(outcomes):
        quality = Quality(
            interval=score_intervals[place] if several and table.averaged[place] else None,
            ratio=_ratio(outcome, dense),
            remarks=() if table.averaged[place] or outcome.score is None else (NOT_A_MEAN,),
        )
        if outcome.weights == "random":
            found.append(replace(quality, ratio=None, remarks=(*quality.remarks, RANDOM_WEIGHTS)))
            continue
        if pairs and several and table.averaged[place] and table.averaged[pairs.dense]:
            quality = pairs.add(place, quality)
        if outcome is not dense:
            loyalty = table.loyalty(place, pairs, same_intervals[place] if several else None)
            quality = replace(quality, loyalty=loyalty, same_draws=same_draws[:, place])
        found.append(quality)
    return found


def _ratio(outcome: Outcome, dense: Outcome | None) -> float | None:
    if dense is None or outcome.score is None or not dense.score:
        return None
    return outcome.score / dense.score


@dataclass(frozen=True, slots=True)
class _Table:
    """Samples x cells; NaN inside these arrays means no value and never leaves this file."""

    scores: Floats
    same: Floats
    averaged: list[bool]
    same_means: list[float | None]
    exact_means: list[float | None]
    n: list[int]

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], ids: list[str]) -> _Table:
        answers = [_aligned(outcome, ids) for outcome in outcomes]
        scores, same, exact = (
            np.array([[getattr(one, name, None) for one in column] for column in answers], dtype=np.float64).T
            for name in ("score", "same_as_dense", "exact_as_dense")
        )
        averaged = [
            outcome.score is not None and average is not None and abs(average - outcome.score) < 1e-6
            for outcome, average in zip(outcomes, column_means(scores), strict=True)
        ]
        counted = np.where(np.isnan(same), exact, same)
        n: list[int] = np.count_nonzero(~np.isnan(counted), axis=0).tolist()
        return cls(scores, same, averaged, column_means(same), column_means(exact), n)

    def loyalty(self, place: int, pairs: _Pairs | None, same_interval: Interval | None) -> dict[str, Any] | None:
        same, exact = self.same_means[place], self.exact_means[place]
        if same is None and exact is None:
            return None
        return {
            "same": same,
            "interval": ends(same_interval) if same is not None else None,
            "exact": exact,
            "n": self.n[place],
            "score_agreement": pairs.agreement[place] if pairs else None,
        }


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Each cell against dense, on the samples that both answered.

    `agreement` is 1 - mean |difference of the scores|; `uneven`: the cell and dense broke on different samples.
    """

    dense: int
    n: list[int]
    uneven: list[bool]
    shared_ratios: list[float | None]
    agreement: list[float | None]
    difference: list[float | None]
    better: list[int]
    worse: list[int]
    ratios: Floats
    ratio_intervals: list[Interval | None]
    difference_intervals: list[Interval | None]

    @classmethod
    def of(cls, resamples: Floats, scores: Floats, draws: Floats, dense: int) -> _Pairs:
        other = np.broadcast_to(scores[:, [dense]], scores.shape)
        gaps = np.isnan(scores) | np.isnan(other)
        own_draws, other_draws = draws, np.broadcast_to(draws[:, [dense]], draws.shape)
        answered = np.count_nonzero(~np.isnan(scores), axis=0)
        own = scores
        if gaps.any():
            own, other = np.where(gaps, np.nan, scores), np.where(gaps, np.nan, other)
            own_draws, other_draws = means(resamples, own), means(resamples, other)
        ratios = np.divide(own_draws, other_draws, out=np.full_like(own_draws, np.nan), where=other_draws > 0)
        n = np.count_nonzero(~gaps, axis=0)
        pairs = zip(column_means(own), column_means(other), strict=True)
        return cls(
            dense=dense,
            n=n.tolist(),
            uneven=(n < np.maximum(answered, answered[dense])).tolist(),
            shared_ratios=[mine / theirs if mine is not None and theirs else None for mine, theirs in pairs],
            agreement=[None if apart is None else 1 - apart for apart in column_means(np.abs(own - other))],
            difference=column_means(own - other),
            better=np.count_nonzero(own > other, axis=0).tolist(),
            worse=np.count_nonzero(own < other, axis=0).tolist(),
            ratios=ratios,
            ratio_intervals=intervals(ratios),
            difference_intervals=intervals(own_draws - other_draws),
        )

    def add(self, place: int, quality: Quality) -> Quality:
        """`quality` with what the pairing tells; the ratio is over shared samples where some broke on one side."""
        ratio, remarks = quality.ratio, quality.remarks
        if self.uneven[place]:
            ratio = self.shared_ratios[place]
            remarks = (*remarks, f"compared with dense on the {self.n[place]} samples that both answered")
        return replace(
            quality,
            ratio=ratio,
            remarks=remarks,
            ratio_interval=None if ratio is None else self.ratio_intervals[place],
            ratio_draws=None if ratio is None else self.ratios[:, place],
            paired=self.paired(place) if place != self.dense else None,
        )

    def paired(self, place: int) -> dict[str, Any] | None:
        if not self.n[place]:
            return None
        return {
            "difference": self.difference[place],
            "interval": ends(self.difference_intervals[place]),
            "better": self.better[place],
            "worse": self.worse[place],
            "p": sign_p(self.better[place], self.worse[place]),
            "n": self.n[place],
        }


def _aligned(outcome: Outcome, ids: list[str]) -> Sequence[Answer | None]:
    if len(outcome.answers) == len(ids) and all(
        answer.id == id_ for answer, id_ in zip(outcome.answers, ids, strict=True)
    ):
        return outcome.answers
    by_id = {answer.id: answer for answer in outcome.answers}
    return [by_id.get(id_) for id_ in ids]
