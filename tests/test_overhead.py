"""The table of what methods cost: its floors, its rows, and what cannot be measured."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from effivlm_micro.architectures import FAMILIES
from toy_session import ROOT

from effivlm.models._sources import resolve
from effivlm.records import Settings
from effivlm.run.group import open_model


@pytest.fixture(scope="module")
def overhead() -> Any:
    import sys

    sys.path.insert(0, str(ROOT / "bench_tests" / "studies"))
    import overhead

    return overhead


@pytest.fixture(scope="module")
def model() -> Any:
    torch.set_num_threads(1)
    opened = open_model(resolve(next(iter(FAMILIES))), Settings())
    yield opened
    opened.close()


def test_operations_are_two_for_each_weight_and_entry_and_half_of_a_full_attention(overhead: Any, model: Any) -> None:
    text = model.model.config.text_config
    inner = text.hidden_size * text.intermediate_size * 3
    head = text.hidden_size // text.num_attention_heads
    outer = 2 * text.hidden_size**2 + 2 * text.hidden_size * text.num_key_value_heads * head
    lengths = list(range(40, 40 + text.num_hidden_layers))
    expected = sum(2 * (inner + outer) * n + 4 * text.hidden_size * n * n / 2 for n in lengths)
    assert overhead.decoder_flops(model, lengths) == pytest.approx(expected)


def test_a_page_is_about_as_long_as_asked(overhead: Any, model: Any) -> None:
    sample = overhead.page(model, 300)
    assert abs(model.prepare(sample)["input_ids"].shape[1] - 300) < 90


def test_rows_hold_ratios_to_dense_of_the_same_rounds_and_say_what_is_unsupported(overhead: Any, model: Any) -> None:
    rows = overhead.measure(model, 300, ["streaming_llm", "random_visual", "pyramiddrop"], ["0.10"], 1)
    found = {row["method"]: row for row in rows}
    assert found["dense"]["over_dense"] == found["dense"]["over_bound"] == 1
    assert "mean over" in found["pyramiddrop"]["unsupported"]
    pruned, dense = found["random_visual"], found["dense"]
    assert pruned["over_dense"] == pytest.approx(pruned["rounds_s"][0] / pruned["dense_rounds_s"][0])
    assert pruned["dense_rounds_s"][0] in dense["rounds_s"]
    assert pruned["decoder_flops"] < 0.3 * dense["decoder_flops"] == 0.3 * found["streaming_llm"]["decoder_flops"]
    assert pruned["over_bound"] > pruned["over_dense"]
    assert 0 < pruned["floor_s"] < dense["floor_s"]
    assert pruned["kept_share"] == pytest.approx(0.1, abs=0.01)
    assert dense["split_s"]["method"] == 0 < pruned["split_s"]["method"] < pruned["split_s"]["prefill"]
    run = {"device": "cpu", "dtype": "float32", "torch": torch.__version__, "date": "2026-11-25", "rounds": 1}
    text = overhead.table({"run": run, "rows": rows})
    assert f"{found['random_visual']['over_dense']:.3f}" in text
    assert text.count("unsupported:") == 1


def test_a_length_that_no_picture_makes_is_told_and_the_others_are_measured(
    overhead: Any, model: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = argparse.Namespace(device="cpu", rounds=1, models=[model.source.name], out=tmp_path / "found.json")
    shown = lambda document: "\n".join([f"{len(document['rows'])} rows", *overhead.missing(document)])  # noqa: E731
    overhead.record(asked, [10**6, 300], lambda opened, tokens: [{"id": overhead.page(opened, tokens).id}], shown)
    document = json.loads(asked.out.read_text())
    assert document["rows"] == [{"id": "page"}]
    assert len(document["absent"]) == 1
    said = "no picture makes a prompt of about 1000000 tokens"
    assert said in document["absent"][0]
    assert f"- not measured: {said}" in asked.out.with_suffix(".md").read_text()
    assert f"not measured: {said}" in capsys.readouterr().out
    assert overhead.missing({"rows": []}) == []


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"models": ["random:llava_8b"]}, "--models: unknown shape 'llava_8b'"),
        ({"out": Path("/nowhere/found.json")}, "--out: /nowhere is no folder"),
    ],
)
def test_what_cannot_be_measured_or_kept_is_refused_before_anything_runs(
    overhead: Any, model: Any, tmp_path: Path, asked: dict[str, Any], words: str
) -> None:
    whole = {"device": "cpu", "rounds": 1, "models": [model.source.name], "out": tmp_path / "found.json", **asked}
    with pytest.raises(SystemExit, match=words):
        overhead.record(argparse.Namespace(**whole), [300], lambda *_: pytest.fail("too late"), str)
