"""The study of the paper's observations: verdicts follow planted effects, and nothing is said of too few samples."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from toy_session import ROOT

from bench_tests.studies.observations import __main__ as study
from bench_tests.studies.observations import cache_claims, first_claims, gathering, page, pareto, tally, webpage
from bench_tests.studies.observations.claims import CLAIMS
from bench_tests.studies.observations.effects import HOLDS, NOT, OPEN, Claim, Row, rows_of
from bench_tests.studies.observations.evidence import Evidence
from bench_tests.studies.observations.names import BUDGETS, TOKENS
from bench_tests.studies.observations.plugging import METHODS, plug
from effivlm.records import Answer, Outcome, dump
from tests.outcomes import HEADER, cell, missing, quality, store

RUN = {
    "started": "then",
    "device": "a card",
    "dtype": "float32",
    "limit": 40,
    "versions": {},
    "commit": "c",
    "command": "pytest",
}
RIGHT = {"visionzip": 0.6, "prumerge_plus": 0.6, "fastv": 0.1}


def planted(samples: int, right: dict[str, float], tasks: tuple[str, ...] = ("gqa_micro", "docvqa_micro")) -> Evidence:
    """Two models whose methods are right so often, at every budget, on the same samples."""
    groups = []
    for model in ("one", "two"):
        for task in tasks:
            drawn = random.Random(f"{model} {task}")
            ids = [f"{task}-{number}" for number in range(samples)]
            group = tally.Group(model, task, "short", ids, [*ids], [4] * samples)
            group.cells[tally.DENSE] = tally.Cell([1.0] * samples, [1.0] * samples, 1.0, 1.0)
            for method in TOKENS:
                share = right.get(method, 0.5)
                scores = [float(drawn.random() < share) for _ in ids]
                group.cells.update({(method, one): tally.Cell(scores, scores, float(one), 0.5) for one in BUDGETS})
            groups.append(group)
    return Evidence(tally.Tally(groups, [RUN]))


def verdict(evidence: Evidence, name: str) -> Row:
    claims: list[Claim] = [*first_claims.CLAIMS, *cache_claims.CLAIMS]
    return next(row for row in rows_of(claims, evidence) if row.claim.name.startswith(name))


def test_a_planted_difference_holds_and_its_interval_covers_it() -> None:
    row = verdict(planted(40, RIGHT), "1.4")
    assert row.verdict == HOLDS
    assert row.effect is not None
    low, high = row.effect.interval or (0.0, 0.0)
    assert low < 0.5 < high
    assert row.effect.value == pytest.approx(0.5, abs=0.15)


def test_the_same_difference_the_other_way_round_does_not_hold() -> None:
    assert verdict(planted(40, {"visionzip": 0.1, "prumerge_plus": 0.1, "fastv": 0.6}), "1.4").verdict == NOT


def test_of_few_samples_nothing_is_told() -> None:
    row = verdict(planted(4, RIGHT), "1.4")
    assert (row.verdict, row.q) == (OPEN, None)
    assert row.effect is not None
    assert row.effect.interval is None


def test_a_claim_of_no_gain_holds_where_the_gain_is_surely_small() -> None:
    claim = next(one for one in cache_claims.CLAIMS if one.name.startswith("L1"))
    evidence = planted(200, {"snapkv": 0.9, "pyramidkv": 0.1, "vl_cache": 0.1})
    assert rows_of([claim], evidence)[0].verdict == HOLDS
    turned = planted(200, {"snapkv": 0.1, "pyramidkv": 0.9, "vl_cache": 0.9})
    assert rows_of([claim], turned)[0].verdict == NOT


def test_answers_that_never_differ_do_not_hold_a_difference_once_there_are_many() -> None:
    claim = next(one for one in first_claims.CLAIMS if one.name.startswith("1.4"))
    few, many = (planted(size, dict.fromkeys(TOKENS, 1.0)) for size in (20, 400))
    assert [rows_of([claim], one)[0].verdict for one in (few, many)] == [OPEN, NOT]


def test_one_small_effect_among_many_claims_is_no_discovery() -> None:
    claim = next(one for one in first_claims.CLAIMS if one.name.startswith("1.4"))
    evidence = planted(40, {"visionzip": 0.5, "prumerge_plus": 0.5, "fastv": 0.34})
    alone = rows_of([claim], evidence)[0]
    same = replace(claim, name="none", effect=lambda one: one.scores.contrast([("h2o", "0.01")], [("h2o", "0.05")]))
    crowd = rows_of([claim, *[same] * 60], evidence)[0]
    assert alone.q is not None
    assert crowd.q is not None
    assert alone.q < 0.05 < crowd.q


def test_samples_of_one_picture_are_drawn_together() -> None:
    apart = planted(40, RIGHT)
    for group in apart.tally.groups:
        group.units[:] = [f"picture {number // 8}" for number in range(40)]
    pooled = verdict(apart, "1.4").effect
    alone = verdict(planted(40, RIGHT), "1.4").effect
    assert pooled is not None
    assert alone is not None
    assert (pooled.units, alone.units) == (10, 80)
    assert pooled.value == alone.value


def test_what_was_not_run_is_named_and_takes_no_part(tmp_path: Path) -> None:
    row = verdict(planted(40, RIGHT), "L3")
    assert (row.verdict, row.q) == (OPEN, None)
    assert "layerwise@even at 0.01" in row.reason
    nothing: dict[str, Any] = {name: [] for name in ("sources", "commands", "curves", "pareto")}
    found = {**nothing, "unmeasured": {}, "claims": [row.to_json()]}
    for text in (page.markdown(found), webpage.page(found)):
        assert "Not tested: not run: layerwise@even at 0.01" in text


def test_a_tally_holds_what_the_run_said_and_is_read_back_equal(tmp_path: Path) -> None:
    scores, same = [1.0, 0.0, 0.5, None], [True, False, False, None]
    outcomes = [quality(cell(), [1.0] * 4), quality(cell("snapkv", "0.10", preset="effivlm"), scores, same)]
    header = {**HEADER, "settings": {"limit": 4, "seed": 0, "dtype": "float32"}}
    (tmp_path / "run").mkdir()
    store(tmp_path / "run", outcomes, header=header)
    gathered = gathering.load([tmp_path / "run"])
    gathered.write(tmp_path / "tally.json.gz")
    again = gathering.load([tmp_path / "tally.json.gz"])
    assert again == gathered
    (group,) = again.groups
    found = group.cells["snapkv@effivlm", "0.10"]
    assert (found.scores, found.same) == (scores, [1.0, 0.0, 0.0, None])


def test_runs_with_other_samples_are_refused_by_name(tmp_path: Path) -> None:
    first, second = planted(10, RIGHT).tally, planted(10, RIGHT).tally
    for group in second.groups:
        group.ids[:] = [f"other {one}" for one in group.ids]
    for name, one in (("first", first), ("second", second)):
        one.write(tmp_path / name)
    with pytest.raises(ValueError, match=r"second: one on gqa_micro holds samples such as other gqa_micro-0"):
        gathering.load([tmp_path / "first", tmp_path / "second"])


def test_the_study_methods_are_listed_once_they_are_plugged_in(tmp_path: Path) -> None:
    code = (
        "import json; from effivlm import registry;"
        "print(json.dumps([registry.token_methods(), registry.unusable('methods')]))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(plug(tmp_path))])}
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path, check=True
    )
    listed, unusable = json.loads(said.stdout)
    assert set(METHODS) <= set(listed)
    assert not unusable


def test_a_run_that_was_cut_off_gives_what_it_answered(tmp_path: Path) -> None:
    header = {**HEADER, "settings": {"limit": 4, "seed": 0, "dtype": "float32"}}
    store(tmp_path, [], header=header, end=None)
    dense, snapkv = quality(cell(), [1.0] * 3), quality(cell("snapkv", "0.10"), [0.0, 0.5, 1.0], [False, True, True])
    paired = quality(cell(task="mme_image_micro"), [1.0])
    journal = tmp_path / "journal-here-1.jsonl"
    lines = [
        {
            "kind": "answers",
            "model": one.cell.model,
            "task": one.cell.task,
            "number": number,
            "cells": [given(one, answer)],
        }
        for one in (dense, snapkv, paired)
        for number, answer in enumerate(one.answers)
        if (one, number) != (snapkv, 1)
    ]
    journal.write_text("".join(dump(line) + "\n" for line in lines), encoding="utf-8")
    (group,) = gathering.load([tmp_path]).groups
    assert (group.task, group.ids) == ("docvqa_micro", ["s0", "s1", "s2"])
    assert group.cells["snapkv", "0.10"].scores == [0.0, None, 1.0]
    assert group.cells["snapkv", "0.10"].same == [0.0, None, 1.0]


def given(one: Outcome, answer: Answer) -> dict[str, Any]:
    return {"cell": one.cell.to_json(), "answer": asdict(answer)}


def test_the_command_writes_a_table_a_json_and_a_page_that_says_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted(40, RIGHT).tally.write(tmp_path / "tally.json.gz")
    reports = ROOT / "reports" / "baselines" / "gpu_efficiency_h200.json"
    words = ["judge", str(tmp_path / "tally.json.gz"), "--oe", str(reports), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["observations", *words])
    study.main()
    found = json.loads((tmp_path / "out" / "observations.json").read_text())
    assert [claim["name"] for claim in found["claims"]] == [claim.name for claim in CLAIMS]
    told = {claim["name"]: claim["verdict"] for claim in found["claims"]}
    assert (told["1.4 encoder at 1 %"], told["3.1 first token"], told["5.1 at their own budgets"]) == (
        HOLDS,
        HOLDS,
        OPEN,
    )
    text, drawn = ((tmp_path / "out" / f"observations.{end}").read_text() for end in ("md", "html"))
    assert all(claim["text"] in text for claim in found["claims"])
    assert drawn.count("<tr>") == len(found["claims"]) + len({claim["group"] for claim in found["claims"]})
    assert "http" not in drawn.replace("http://www.w3.org/2000/svg", "")
    assert any(point["front"] and point["method"] == "dense" for point in found["pareto"])


def test_only_settings_that_no_other_beats_in_both_are_on_a_front() -> None:
    evidence = planted(40, RIGHT)
    made = pareto.points(replace(evidence, reports=[timings("fastv", 2.0), timings("visionzip", 1.5)]))
    first = {(one["method"], one["front"]) for one in made if one["saves"] == "time to first token"}
    assert first == {("dense", True), ("fastv", True), ("visionzip", True)}
    slower = pareto.points(replace(evidence, reports=[timings("fastv", 1.5), timings("visionzip", 2.0)]))
    assert ("fastv", False) in {
        (one["method"], one["front"]) for one in slower if one["saves"] == "time to first token"
    }


def timings(method: str, times: float) -> dict[str, Any]:
    def cell(name: str, keep: float, value: float) -> dict[str, Any]:
        costs = {"ttft_s": {"median": 1 / value}, "kv_bytes": {"median": 100 * keep}}
        facts = {"model": "shape", "method": name, "preset": "paper", "keep": keep}
        return {**facts, "costs": costs, "speedups": {"ttft": {"value": value, "interval": None}}}

    return {"run": {"device": "card"}, "cells": [cell("dense", 1.0, 1.0), cell(method, 0.1, times)]}


def test_cells_without_a_result_are_counted_by_method_with_a_reason(tmp_path: Path) -> None:
    header = {**HEADER, "settings": {"limit": 4, "seed": 0, "dtype": "float32"}}
    refused = [
        missing(cell("pyramiddrop", keep), "unsupported", f"keep {keep} is too little") for keep in ("0.01", "0.05")
    ]
    store(tmp_path, [quality(cell(), [1.0]), *refused], header=header)
    found = gathering.load([tmp_path, tmp_path])
    assert found.unmeasured == {"pyramiddrop, unsupported": (4, "keep 0.05 is too little")}
    found.write(tmp_path / "tally.json.gz")
    assert gathering.load([tmp_path / "tally.json.gz"]).unmeasured == found.unmeasured
