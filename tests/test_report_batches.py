"""Speed-ups of decoding many prompts at once: equal batches and equal prompts are compared, and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from effivlm.records import Cell, Cost, Outcome
from effivlm.report import document, export, payload
from effivlm.report.baseline import Side, of_run
from effivlm.report.limits import Limits
from effivlm.report.terminal import table
from effivlm.report.verdict import verdict
from tests.outcomes import END, HEADER, cell, quality, timed

DENSE, SNAPKV = cell(), cell("snapkv", "0.10")
SCHEMA = Path(document.__file__).parent / "schema" / "report.schema.json"


def batched(which: Cell, batch: int, *steps_ms: float, prompt: int = 7323, own: float = 4.0) -> Outcome:
    """A decode outcome, alone and of a batch."""
    one = timed(which, "decode", *[own] * 6, engine="cuda_graph")
    costs = {
        "batch": Cost((float(batch),)),
        "batch_decode_ms_per_step": Cost(steps_ms),
        "batch_decode_floor_ms_per_step": Cost((1.5,)),
        "batch_tokens_per_s": Cost(tuple(1e3 * batch / step for step in steps_ms)),
        "largest_batch": Cost((90.0,)),
        "prompt_tokens": Cost((float(prompt),)),
    }
    return replace(one, costs={**one.costs, **costs})


def built(*those: Outcome) -> dict[str, Any]:
    found = document.build({**HEADER, "notes": []}, those, END)
    jsonschema.validate(found, json.loads(SCHEMA.read_text(encoding="utf-8")))
    return found


def side(those: list[Outcome]) -> Side:
    return of_run(document.build(HEADER, those, END), those, "run")


def snapkv_of(found: dict[str, Any]) -> dict[str, Any]:
    one: dict[str, Any]
    (one,) = (one for one in found["cells"] if one["method"] == "snapkv")
    return one


def test_a_batch_is_compared_with_dense_at_the_same_batch_with_an_interval() -> None:
    one = snapkv_of(built(batched(DENSE, 32, *[12.0] * 6), batched(SNAPKV, 32, 7.0, *[8.0] * 6, own=3.9)))
    assert one["speedups"]["batch"]["value"] == 1.5
    assert one["speedups"]["batch"]["interval"] == pytest.approx([1.5, 12 / 7])
    assert one["speedups"]["decode"]["value"] == pytest.approx(4 / 3.9)
    assert one["remarks"] == []


def test_another_batch_or_another_prompt_gives_no_speedup_and_a_remark() -> None:
    other = snapkv_of(built(batched(DENSE, 32, *[12.0] * 6), batched(SNAPKV, 16, *[7.0] * 6)))
    assert (other["speedups"]["batch"], other["speedups"]["decode"]["value"]) == (None, 1.0)
    assert other["remarks"] == [
        "no dense batch_decode_ms_per_step on engine cuda_graph, batch 16 at 7,323 prompt tokens, so no batch speed-up"
    ]
    short = snapkv_of(built(batched(DENSE, 32, *[12.0] * 6), batched(SNAPKV, 32, *[7.0] * 6, prompt=2915)))
    assert (short["speedups"]["batch"], short["speedups"]["decode"]) == (None, None)
    assert "at 2,915 prompt tokens, so no decode speed-up" in short["remarks"][0]


def test_the_mean_over_tasks_names_batches_and_is_refused_over_several() -> None:
    def on(task: str, batch: int) -> list[Outcome]:
        where = [replace(one, task=task) for one in (DENSE, SNAPKV)]
        return [batched(where[0], batch, *[12.0] * 6), batched(where[1], batch, *[6.0] * 6)]

    alike = built(*on("a", 32), *on("b", 32))["summary"]
    assert [(row["value"], row["n"]) for row in alike["oe"] if row["of"] == "batch"] == [(2.0, 2)]
    mixed = built(*on("a", 32), *on("b", 8))["summary"]
    assert [row for row in mixed["oe"] if row["of"] == "batch"] == []
    assert mixed["refused"] == [
        {
            "table": "oe",
            "reason": "batch: no mean over engine cuda_graph, batch 32 (a) and cuda_graph, batch 8 (b)",
            "select": "--vlm-tasks a",
        }
    ]


def test_terminal_tables_and_page_show_a_batch_where_one_was_timed() -> None:
    plain = built(timed(DENSE, "decode", 4.0), timed(SNAPKV, "decode", 3.0))
    assert "batch" not in table(plain)
    rounds = [batched(DENSE, 32, *[12.0] * 6), batched(SNAPKV, 32, *[8.0] * 6)]
    found = built(*rounds, quality(DENSE, [1.0, 1.0]), quality(SNAPKV, [1.0, 0.0]))
    title, head, _, _, row = table(found).splitlines()[1:6]
    assert title.endswith("batch 32)")
    assert head.split()[-5:] == ["decode", "x", "batch", "x", "asked/kept"]
    assert row.split()[-2:] == ["1.50", "0.1/0.100"]
    columns = payload.payload(found)["cells"]["columns"]
    assert (columns["batch"], columns["bfloor"], columns["copies"]) == ([1.0, 1.5], {"all": 1.5}, {"all": 32.0})
    assert columns["largest_batch"] == {"all": 90.0}
    rows = export.tables(found)["cells"]
    assert rows[2][rows[0].index("batch_speedup_ratio")] == 1.5
    assert rows[2][rows[0].index("median_largest_batch")] == 90.0


@pytest.mark.parametrize(
    ("now", "check", "words"),
    [
        (batched(SNAPKV, 16, *[8.0] * 6), "batch", "at batch 32, now at 16: run with --vlm-batch 32"),
        (timed(SNAPKV, "decode", 4.0, engine="cuda_graph"), "batch", "at batch 32, now at 1: run with"),
        (
            batched(SNAPKV, 32, *[8.0] * 6, prompt=2915),
            "prompt",
            "of 7,323 tokens, now of 2,915: run with --vlm-prompt",
        ),
    ],
)
def test_the_gate_refuses_another_batch_or_prompt_and_says_what_to_run(now: Outcome, check: str, words: str) -> None:
    before = [batched(SNAPKV, 32, *[8.0] * 6)]
    found = verdict(side(before), side([now]), Limits())
    (row,) = (row for row in found["rows"] if row["status"] == "refused")
    assert row["check"] == check
    assert words in row["text"]


def test_the_gate_sees_a_batch_that_became_slower() -> None:
    before, after = (side([batched(SNAPKV, 32, *[step] * 6)]) for step in (8.0, 9.0))
    found = verdict(before, after, Limits())
    assert [(row["check"], row["status"]) for row in found["rows"] if row["status"] != "ok"] == [("batch", "fail")]
