"""Kept entries of the cache methods against those of kvpress, an independent implementation, stored as golden files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from make_kvpress_golden import BASES, budget, entries, inputs, mask, tables

from effivlm import registry
from effivlm.compression.base import CachePart, LayerView
from effivlm.records import Budget
from effivlm.seams.angles import Angles, moments
from effivlm.seams.columns import column_sums

GOLDEN = Path(__file__).parent.parent / "data" / "kvpress"
CASES = [
    pytest.param(file.stem, json.loads(line), id=f"{file.stem}-{number}")
    for file in sorted(GOLDEN.glob("*.jsonl"))
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines())
]


@pytest.mark.parametrize(("name", "case"), CASES)
def test_the_same_entries_are_kept_as_kvpress_keeps(name: str, case: dict[str, Any]) -> None:
    length, keep = case["length"], Budget.parse(case["keep"])
    given = inputs(case["seed"], length, *case["heads"])
    assert given.digest == case["inputs"], "the inputs of the golden file cannot be made again here"
    fields = dict(case["fields"])
    base = fields.pop("base", 0.0)
    method: CachePart = registry.load("methods", name)(keep=keep, **fields)
    visual = torch.zeros(length, dtype=torch.bool)
    queries = angles(range(length), base).turned(given.queries)  # what a layer shows
    received = column_sums(queries, given.keys) if method.columns else None
    start = method.moments_from(length)
    known = {} if start is None else {start: moments(queries[:, start:], angles(range(start, length), base))}
    rows = queries[:, length - method.rows(visual) :]
    view = LayerView(rows, given.keys, given.values, visual, 0, received, moments=known)
    view = replace(view, following=lambda count: angles(range(length, length + count), base))
    layer = method.layer(view, budget(case["keep"], length), "s")
    assert layer.indices is not None
    lengths = layer.lengths or [layer.indices.shape[1]] * len(layer.indices)
    kept = [row[:count].tolist() for row, count in zip(layer.indices, lengths, strict=True)]
    assert kept == [entries(text) for text in case["kept"]]


def angles(positions: range, base: float) -> Angles:
    return Angles(*tables(torch.tensor(positions), base))


def test_golden_files_hold_every_method_and_odd_lengths() -> None:
    names = {case.values[0] for case in CASES}
    assert names == {"streaming_llm", "snapkv", "h2o", "tova", "expected_attention", "adakv"}
    assert all(case.values[1]["length"] % 2 for case in CASES)  # type: ignore[index]
    assert len({tuple(case.values[1]["heads"]) for case in CASES}) > 2  # type: ignore[index]
    turned = {case.values[1]["fields"].get("base") for case in CASES if case.values[0] == "expected_attention"}  # type: ignore[index]
    assert turned == set(BASES), "queries to come are rotated"


def test_a_mask_reads_back_and_another_entry_is_another_mask() -> None:
    assert entries(mask([0, 5, 16], 17)) == [0, 5, 16]
    assert mask([0, 5], 17) != mask([0, 6], 17)
