"""The page of findings: its numbers are those of the reports, and it says what was not measured."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from toy_session import ROOT

from effivlm.records import Cost, Outcome
from effivlm.report import document
from tests.outcomes import END, HEADER, achieved, cell, missing, timed
from tests.test_report_batches import batched

RUN = {**HEADER, "notes": [], "device": "a card", "driver": "1", "settings": {"dtype": "bfloat16"}}


@pytest.fixture(scope="module")
def findings() -> Any:
    import sys

    sys.path.insert(0, str(ROOT / "bench_tests" / "studies"))
    import findings

    return findings


def measured(method: str, keep: str, ttft: float, step: float, tokens: int = 7323) -> list[Outcome]:
    which = cell(method, keep)
    first = timed(which, "ttft", *[ttft] * 6, engine="compiled")
    costs = {"ttft_floor_s": Cost((0.8 * ttft,)), "tower_s": Cost((0.05,)), "prompt_tokens": Cost((float(tokens),))}
    decode = batched(which, 32, *[step] * 6, prompt=tokens)
    floor = {"batch_decode_floor_ms_per_step": Cost((10.0 * float(which.keep),))}
    parts = (
        replace(first, costs={**first.costs, **costs}),
        replace(decode, costs={**decode.costs, **floor}, achieved=achieved(float(which.keep))),
    )
    return [replace(part, weights="random") for part in parts]


def built(*outcomes: Outcome) -> dict[str, Any]:
    return document.build(RUN, outcomes, END)


def test_the_page_sets_measured_beside_published_and_beside_what_the_floor_allows(findings: Any) -> None:
    found = built(
        *measured("dense", "1.00", 0.30, 12.0),
        *measured("snapkv", "0.10", 0.31, 8.0),
        *measured("fastv", "0.10", 0.12, 6.0),
    )
    text = findings.page([found], ["one.json"])
    assert "| `snapkv` | 0.1 | 310.0 | 0.97 [0.97, 0.97] | 1.00 | 4.00 | 1.00 [1.00, 1.00] | 1.71 | 8.00 |" in text
    assert "1.50 [1.50, 1.50] | 10.00 | 90 |" in text
    assert "Speed-up to the first token at keep 0.1: pruning 2.50 (`fastv`), cache methods 0.97 (`snapkv`)." in text
    assert "dense takes 12.00 ms a step, 1.20 of the floor" in text
    assert "1.50 (`snapkv`) to 2.00 (`fastv`), where bytes allow at most 10.00; published 1.71 to 1.88" in text
    assert "Dense needs 300 ms to the first token, of which 50 ms in the vision tower: 1.25 of its floor." in text


def test_every_length_is_a_table_of_its_own_and_what_is_missing_is_named(findings: Any) -> None:
    lengths = [
        built(*measured("dense", "1.00", 0.1, 9.0, tokens), missing(cell("h2o", "0.10"))) for tokens in (2915, 7323)
    ]
    text = findings.page(lengths, ["a.json", "b.json"])
    assert text.index("2,915 prompt tokens, batch 32") < text.index("7,323 prompt tokens, batch 32")
    assert text.count("micro_llava-h2o-keep0.10-docvqa_micro (quality): failed, out of memory") == 2


def test_a_run_that_was_cut_says_so_on_the_page(findings: Any) -> None:
    cut = document.build({**RUN, "notes": ["the lights went out"]}, measured("dense", "1.00", 0.3, 12.0), None)
    text = findings.page([cut], ["cut.json"])
    assert "- `cut.json`: a card, driver 1, " in text
    assert "\n    - it is interrupted: cells that it did not reach are missing\n    - the lights went out\n" in text


def test_runs_on_two_cards_are_told_apart(findings: Any) -> None:
    runs = [
        document.build({**RUN, "device": card}, measured("dense", "1.00", 0.3, 12.0, tokens), END)
        for card, tokens in (("one card", 7323), ("another", 7323))
    ]
    text = findings.page(runs, ["a.json", "b.json"], runs[1])
    assert text.count("## micro_llava, 7,323 prompt tokens, another, batch 32\n") == 1
    assert "Of 3 medians with intervals, 3 intervals meet those of a second process" in text
    assert "- `a.json`: one card, " in text
    assert "- `b.json`: another, " in text
    assert "interrupted" not in text


def test_a_group_without_dense_is_refused(findings: Any) -> None:
    with pytest.raises(ValueError, match="dense of micro_llava at 7323 prompt tokens was not measured"):
        findings.page([built(*measured("snapkv", "0.10", 0.31, 8.0))], ["one.json"])


def test_a_second_run_is_set_beside_the_first_and_says_whether_they_agree(findings: Any) -> None:
    one = built(*measured("dense", "1.00", 0.30, 12.0), *measured("snapkv", "0.10", 0.31, 8.0))
    two = built(*measured("dense", "1.00", 0.30, 12.0), *measured("snapkv", "0.10", 0.31, 8.4))
    text = findings.page([one], ["one.json"], two)
    assert "Of 6 medians with intervals, 5 intervals meet those of a second process" in text
    name = "micro_llava-snapkv-keep0.10-docvqa_micro | batch_decode_ms_per_step"
    assert f"| {name} | 8 [8, 8] | 8.4 [8.4, 8.4] | 5.0% | no |" in text


def test_the_committed_page_is_made_from_the_committed_reports(findings: Any) -> None:
    folder = findings.PAGE.parent
    paths = [folder / f"gpu_efficiency{name}.json" for name in ("", "_qwen2_vl", "_h200", "_38b", "_again")]
    *documents, again = (json.loads(path.read_text(encoding="utf-8")) for path in paths)
    made = findings.page(documents, [path.name for path in paths[:-1]], again)
    assert made == findings.PAGE.read_text(encoding="utf-8")


def test_the_committed_overhead_table_is_made_from_its_file() -> None:
    import overhead

    stored = json.loads(overhead.FILE.read_text(encoding="utf-8"))
    assert overhead.table(stored) == overhead.FILE.with_suffix(".md").read_text(encoding="utf-8")


def test_the_committed_grids_are_made_from_their_files() -> None:
    import grid

    files = sorted(grid.FILE.parent.glob("grid*.json"))
    assert [file.stem for file in files] == ["grid", "grid_llava_onevision", "grid_qwen2_vl"]
    for file in files:
        stored = json.loads(file.read_text(encoding="utf-8"))
        assert grid.table(stored) == file.with_suffix(".md").read_text(encoding="utf-8")
