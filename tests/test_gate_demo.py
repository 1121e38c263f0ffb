"""The demonstration of the gate: six faults in copies of a run, each caught, none of them planted in the run itself."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from effivlm.records import Cost
from effivlm.report import verdict
from tests.outcomes import cell, quality, small_run, store

sys.path.insert(0, str(Path(__file__).parent.parent / "bench_tests" / "studies"))
import gate_demo


def test_all_six_faults_are_caught_and_the_run_stays_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = store(tmp_path, small_run())
    before = path.read_bytes()
    assert gate_demo.main([str(tmp_path)]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.startswith("planted")
    assert [line.split("  ")[0] for line in lines] == [
        "nothing",
        "a method silently runs dense",
        "2 points of score lost",
        "a decode 10 % slower",
        "a case vanished",
        "a new case",
        "another device",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["outcomes.jsonl"]
    assert path.read_bytes() == before


def test_timings_of_a_noisy_machine_are_steadied_and_the_table_says_so() -> None:
    noisy = next(one for one in small_run() if one.part == "decode")
    noisy = replace(noisy, costs={gate_demo.DECODE: Cost((8.0, 8.4, 7.2, 8.8, 8.1))})
    calm, words = gate_demo.steadied(noisy)
    rounds = calm.costs[gate_demo.DECODE].rounds
    assert calm.costs[gate_demo.DECODE].median == noisy.costs[gate_demo.DECODE].median
    assert 0.015 * 8.1 < max(rounds) - min(rounds) <= 0.0201 * 8.1
    assert "scatter over 20 %" in words
    assert gate_demo.steadied(calm) == (calm, "")


def test_a_gate_that_misses_a_fault_makes_the_demonstration_fail(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store(tmp_path, small_run())
    monkeypatch.setattr(verdict._Judge, "_kept", lambda *_: None)
    assert gate_demo.main([str(tmp_path)]) == 1
    assert [line[:28] for line in capsys.readouterr().out.splitlines() if "  NO " in line] == [
        "a method silently runs dense"
    ]


def test_a_run_without_timings_says_what_it_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store(tmp_path, [quality(cell("fastv", "0.10"), [1, 0])])
    assert gate_demo.main([str(tmp_path)]) == 2
    assert "holds no decode timing" in capsys.readouterr().err
