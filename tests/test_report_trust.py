"""Timings that cannot be trusted, or did not settle: marked wherever they are shown, and in no mean, front or gate."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import effivlm.report
from effivlm.records import Outcome
from effivlm.report import document, page, samples
from effivlm.report.baseline import of_document, of_run
from effivlm.report.export import tables
from effivlm.report.limits import Limits
from effivlm.report.payload import payload
from effivlm.report.terminal import table
from effivlm.report.trust import BESIDE_WORKERS, IMPOSSIBLE, doubts, trust
from effivlm.report.verdict import verdict
from effivlm.timing.rounds import unsettled
from fixtures.gpu import company
from tests.outcomes import END, HEADER, achieved, cell, quality, timed

COMPANY = "1 other process on the GPU, holding at least 3.0 GiB of its memory"
FASTV, SNAPKV = cell("fastv", "0.10"), cell("snapkv", "0.10")
STORED = sorted((Path(__file__).parents[1] / "reports" / "baselines").glob("gpu_efficiency*.json"))


def built(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    return document.build(HEADER, outcomes, END)


def run(*remarks: str, part: str = "ttft", own: float = 0.1) -> list[Outcome]:
    """Dense and FastV with one timing each; FastV's carries the remarks."""
    scores = [quality(which, [1.0, 0.0] * 3) for which in (cell(), FASTV)]
    return [*scores, timed(cell(), part, *[0.2] * 6), timed(FASTV, part, *[own] * 6, remarks=remarks)]


def of(found: dict[str, Any], method: str) -> dict[str, Any]:
    (one,) = [one for one in found["cells"] if one["method"] == method]
    known: dict[str, Any] = one
    return known


@pytest.mark.parametrize("remark", [BESIDE_WORKERS, COMPANY])
def test_an_untrusted_timing_is_shown_as_such_and_in_no_mean_and_not_on_the_front(remark: str) -> None:
    trusted, found = built(run()), built(run(remark))
    assert [row["value"] for row in trusted["summary"]["oe"]] == [2.0]
    assert "ttft" in trusted["summary"]["pareto"][0]["front"]
    assert of(found, "fastv")["speedups"]["ttft"]["value"] == 2.0
    assert doubts(of(found, "fastv"), "ttft") == [remark]
    assert found["summary"]["oe"] == []
    assert found["summary"]["pareto"][0]["costs"]["ttft"] is None
    assert "2.00!" in table(found)
    assert f"! untrusted, so in no mean and not in the gate:\n  1 x {remark}\n" in table(found)
    assert "!" not in table(trusted)
    columns = payload(found)["cells"]["columns"]["tdoubt"]
    assert [payload(found)["remarks"][place] for place in columns[1]] == [remark]
    head, _, row = tables(found)["cells"]
    assert row[head.index("ttft_untrusted")] == [remark]
    page.render(found, samples.changed([], samples.Facts()))


def test_a_speedup_over_an_untrusted_dense_is_untrusted_though_its_own_time_is_not() -> None:
    outcomes = run()
    outcomes[2] = outcomes[2].with_remarks(COMPANY)
    found = built(outcomes)
    assert of(found, "fastv")["trust"]["ttft"] == {"untrusted": [], "unsettled": [], "against": [f"dense: {COMPANY}"]}
    assert found["summary"]["oe"] == []


def test_a_trusted_dense_goes_before_a_faster_one_that_is_not() -> None:
    again = timed(cell(preset="again"), "ttft", *[0.05] * 6, remarks=(COMPANY,))
    assert of(built([*run(), again]), "fastv")["speedups"]["ttft"]["value"] == 2.0


@pytest.mark.parametrize("remark", ["timed on CPU", "the GPU was slowed down: SwPowerCap", "energy is not told: NVML"])
def test_other_remarks_leave_a_timing_trusted(remark: str) -> None:
    assert trust([remark], "ttft").untrusted == ()
    assert [row["value"] for row in built(run(remark))["summary"]["oe"]] == [2.0]


@pytest.mark.parametrize(
    ("own", "width", "impossible"), [(0.1, 0.0, True), (0.19, 0.0, True), (0.2, 0.0, False), (0.19, 0.02, False)]
)
def test_a_cache_method_before_dense_by_more_than_the_interval_is_flagged(
    own: float, width: float, impossible: bool
) -> None:
    rounds = [own + width * place / 5 for place in range(6)]
    kept = achieved(0.1, of="prompt entries")
    outcomes = [timed(cell(), "ttft", *[0.2] * 6), timed(SNAPKV, "ttft", *rounds, achieved=kept)]
    one = of(found := built(outcomes), "snapkv")
    assert any(IMPOSSIBLE in remark for remark in one["remarks"]) is impossible
    assert bool(doubts(one, "ttft")) is impossible
    assert bool(found["summary"]["oe"]) is not impossible
    assert (IMPOSSIBLE in table(found)) is impossible
    pruned = [outcomes[0], replace(outcomes[1], cell=FASTV, achieved=achieved(0.1, of="visual tokens"))]
    assert doubts(of(built(pruned), "fastv"), "ttft") == []


def test_a_median_that_did_not_settle_is_marked_in_the_terminal_and_still_counts() -> None:
    (remark,) = unsettled("decode", [3.0, 3.0, 3.0, 4.0, 4.0, 4.0])
    found = built(run(remark, part="decode"))
    assert of(found, "fastv")["trust"]["decode"]["unsettled"] == [remark]
    assert "2.00~" in table(found)
    assert "~ not settled: 1 medians" in table(found)
    assert [row["value"] for row in found["summary"]["oe"]] == [2.0]
    assert payload(found)["cells"]["columns"]["dloose"] == [None, True]
    assert trust([remark], "ttft").unsettled == ()


def test_the_gate_leaves_untrusted_timings_out_and_says_so() -> None:
    def side(outcomes: list[Outcome]) -> Any:
        return of_run(built(outcomes), outcomes, "run")

    good, slow = side(run()), side(run(own=0.15))
    doubtful = side(run(BESIDE_WORKERS, own=0.15))
    assert verdict(good, slow, Limits())["status"] == "failed"
    found = verdict(good, doubtful, Limits())
    (row,) = [row for row in found["rows"] if row["check"] == "untrusted"]
    assert (found["status"], row["status"]) == ("passed", "warn")
    assert row["text"].startswith(
        f"ttft after is untrusted: {BESIDE_WORKERS}: 1 timings were not compared, scores were"
    )
    assert verdict(good, doubtful, Limits(device="fail"))["status"] == "failed"
    schema = json.loads((Path(effivlm.report.__file__).parent / "schema" / "verdict.schema.json").read_text())
    jsonschema.validate(found, schema)


def test_a_stored_report_of_before_is_read_by_its_remarks_and_still_makes_a_page() -> None:
    assert len(STORED) >= 5
    for path in STORED:
        stored = json.loads(path.read_text(encoding="utf-8"))
        assert "trust" not in stored["cells"][0]
        assert "not settled" in table(stored) or not any(
            "not settled" in str(one["remarks"]) for one in stored["cells"]
        )
        text = page.render(stored, samples.changed([], samples.Facts()))
        assert all(one["model"] in text and one["task"] in text for one in stored["cells"])
        assert of_document(stored, path.name).cells.keys() == {one["id"] for one in stored["cells"]}
    stored["cells"][-1]["remarks"].append(COMPANY)
    assert doubts(stored["cells"][-1], "decode") == [COMPANY]


@pytest.mark.parametrize(
    ("workers", "gpus", "trusted"), [(1, 0, True), (2, 0, False), (2, 1, False), (2, 2, True), (8, 4, False)]
)
def test_workers_leave_a_timing_trusted_only_where_each_has_a_gpu_of_its_own(
    workers: int, gpus: int, trusted: bool
) -> None:
    assert (trust(company(workers, gpus), "ttft").untrusted == ()) is trusted
    assert bool(company(workers, gpus)) is (workers > 1)
