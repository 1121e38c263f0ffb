"""The study of methods' own work: the shapes that it draws, and what it prints."""

from __future__ import annotations

import argparse
import sys
from typing import Any

import pytest
import torch
from toy_session import ROOT

from effivlm import registry
from effivlm.compression.places import blocks_of


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Any:
    """With pictures of 3 x 3 tokens and two narrow layers."""
    monkeypatch.setattr(sys, "path", [str(ROOT / "bench_tests" / "studies"), *sys.path])
    import own_work

    small = {"SIDE": 3, "TOWER": (2, 4), "LAYERS": 2, "HEADS": 4, "KV_HEADS": 2, "DIM": 8, "WARM": 0}
    for name, value in small.items():
        monkeypatch.setattr(own_work, name, value)
    return own_work


@pytest.mark.parametrize(("columns", "sizes"), [(9, [9] * 10), (7, [9] + [9, 9, 3] * 3)])
def test_a_picture_is_the_whole_and_nine_tiles_cut_to_its_columns(study: Any, columns: int, sizes: list[int]) -> None:
    view = study.picture(columns, 5, "cpu", torch.float32)
    assert [len(block) for block in blocks_of(view.places)] == sizes
    assert int((view.places[:, 0] < 0).sum()) == 9, "a newline behind each row"
    assert len(view.features) == sum(sizes) + 9


def test_every_method_of_the_vision_and_cache_seams_is_measured(study: Any, capsys: pytest.CaptureFixture[str]) -> None:
    names = registry.names("methods")
    facts = {"device": "cpu", "columns": [7], "width": 6, "keep": "0.30", "rounds": 1, "dense_ms": 1e6}
    study.own_work(argparse.Namespace(**facts, methods=names))
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| `")]
    told = [line.split("`")[1] for line in rows]
    assert told == [name for name, _ in study.parts(names, "0.30")]
    assert {"cdpruner", "holov", "cake", "snapkv"} <= set(told)
    assert not {"dense", "fastv", "downsample"} & set(told)
    assert all(int(line.split("|")[3]) > 0 for line in rows)


def test_what_takes_longer_than_the_goal_is_marked(study: Any, capsys: pytest.CaptureFixture[str]) -> None:
    facts = {"device": "cpu", "columns": [7], "width": 6, "keep": "0.30", "rounds": 1, "methods": ["evs"]}
    for dense_ms, marked in ((1e6, False), (1e-6, True)):
        study.own_work(argparse.Namespace(**facts, dense_ms=dense_ms))
        assert ("over" in capsys.readouterr().out.splitlines()[-1]) is marked
