"""OP against what a setting saves: points of every model and card that was timed, and which of them no other beats."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from bench_tests.studies.observations.book import Book, Pair
from bench_tests.studies.observations.costs import Timed
from bench_tests.studies.observations.evidence import Evidence
from bench_tests.studies.observations.tally import DENSE, Setting

Cost = Callable[[Timed, Timed], float | None]


def _faster(word: str) -> Cost:
    def told(one: Timed, dense: Timed) -> float | None:
        found = one.speedups.get(word)
        return found and found[0]

    return told


def _memory(one: Timed, dense: Timed) -> float | None:
    return dense.kv_bytes / one.kv_bytes if one.kv_bytes and dense.kv_bytes else None


COSTS: Mapping[str, Cost] = {
    "time to first token": _faster("ttft"),
    "decoding, one prompt": _faster("decode"),
    "decoding, a batch": _faster("batch"),
    "bytes of the cache": _memory,
}
"""What is saved, as dense's over the setting's own: more is better."""


def points(evidence: Evidence) -> list[dict[str, Any]]:
    """OP of every timed setting that was also answered, beside each saving; `front`: no other has more of both."""
    book = evidence.scores
    dense = {one.where: one for one in evidence.timed if one.setting == DENSE}
    able = [one for one in evidence.timed if one.where in dense and book.has(one.setting)]
    found: list[dict[str, Any]] = []
    if not able:
        return found
    pairs = book.pairs(list(dict.fromkeys([*(one.setting for one in able), DENSE])))
    quality = {setting: op(book, pairs, setting) for setting in {one.setting for one in able}}
    for where in dense:
        for word, cost in COSTS.items():
            own = [
                {
                    "where": where,
                    "saves": word,
                    "method": one.setting[0],
                    "keep": one.setting[1],
                    "op": quality[one.setting],
                    "times": times,
                }
                for one in able
                if one.where == where and (times := cost(one, dense[where])) is not None
            ]
            found += [{**one, "front": not any(_beats(other, one) for other in own)} for one in own]
    return found


def op(book: Book, pairs: Sequence[Pair], setting: Setting) -> float:
    """Root mean square over tasks of score over dense's, averaged over models."""
    found = []
    for model in dict.fromkeys(model for model, _ in pairs):
        ratios = [book.at(pair, setting)[0] / book.at(pair, DENSE)[0] for pair in pairs if pair[0] == model]
        found.append(float(np.sqrt(np.mean(np.square(ratios)))))
    return sum(found) / len(found)


def _beats(other: Mapping[str, Any], one: Mapping[str, Any]) -> bool:
    gains = [float(other[word]) - float(one[word]) for word in ("op", "times")]
    return min(gains) >= 0 and max(gains) > 0
