"""Kept entries of the cache methods against those of kvpress, an independent implementation, stored as golden files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from make_kvpress_golden import budget, entries, inputs, mask

from effivlm import registry
from effivlm.compression.base import CachePart, LayerView
from effivlm.records import Budget
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
    method: CachePart = registry.load("methods", name)(keep=keep, **case["fields"])
    visual = torch.zeros(length, dtype=torch.bool)
    rows = given.queries[:, length - method.rows(visual) :]
    received = column_sums(given.queries, given.keys) if method.columns else None
    layer = method.layer(
        LayerView(rows, given.keys, given.values, visual, 0, received), budget(case["keep"], length), "s"
    )
    assert layer.indices is not None
    lengths = layer.lengths or [layer.indices.shape[1]] * len(layer.indices)
    kept = [row[:count].tolist() for row, count in zip(layer.indices, lengths, strict=True)]
    assert kept == [entries(text) for text in case["kept"]]


def test_golden_files_hold_every_method_and_odd_lengths() -> None:
    names = {case.values[0] for case in CASES}
    assert names == {"streaming_llm", "snapkv", "h2o", "tova", "expected_attention", "adakv"}
    assert all(case.values[1]["length"] % 2 for case in CASES)  # type: ignore[index]
    assert len({tuple(case.values[1]["heads"]) for case in CASES}) > 2  # type: ignore[index]


def test_a_mask_reads_back_and_another_entry_is_another_mask() -> None:
    assert entries(mask([0, 5, 16], 17)) == [0, 5, 16]
    assert mask([0, 5], 17) != mask([0, 6], 17)
