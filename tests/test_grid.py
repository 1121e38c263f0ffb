"""Whole answers of forced length: what a row adds up to, what dense is compared with, and what does not fit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from effivlm_micro.architectures import FAMILIES
from toy_session import ROOT

from effivlm.models._sources import resolve
from effivlm.records import Settings
from effivlm.run.group import open_model


@pytest.fixture(scope="module")
def grid() -> Any:
    import sys

    sys.path.insert(0, str(ROOT / "bench_tests" / "studies"))
    import grid

    return grid


@pytest.fixture(scope="module")
def model() -> Iterator[Any]:
    torch.set_num_threads(1)
    opened = open_model(resolve(next(iter(FAMILIES))), Settings())
    yield opened
    opened.close()


def test_a_row_is_the_first_token_of_every_prompt_and_the_steps_that_follow(grid: Any, model: Any) -> None:
    rows = grid.measure(model, 200, ["dense", "snapkv:0.10"], [1, 3], [1, 2], 1)
    assert [(row["method"], row["batch"], row["output_tokens"]) for row in rows] == [
        (method, batch, output) for method in ("dense", "snapkv:0.10") for batch in (1, 2) for output in (1, 3)
    ]
    for row in rows:
        steps = row["decode_rounds_s"][0]
        assert row["total_s"] == pytest.approx(row["batch"] * row["ttft_rounds_s"][0] + steps)
        assert (steps == 0) == (row["output_tokens"] == 1)
        assert grid.speedup(rows, row) == pytest.approx(
            next(one for one in rows if one["method"] == "dense" and _same(one, row))["total_s"] / row["total_s"]
        )
    assert rows[-1]["step_floor_s"] < rows[3]["step_floor_s"]
    run = {"device": "cpu", "dtype": "float32", "torch": torch.__version__, "date": "2026-11-26", "rounds": 1}
    steady = [
        {**row, "ttft_rounds_s": rows[0]["ttft_rounds_s"]} for row in rows
    ]  # a busy machine's would tell no speed-ups
    text = grid.table({"run": run, "rows": steady})
    assert f"| {rows[0]['total_s']:.3f} (1.00) |" in text
    assert text.count("`snapkv:0.10`") == 2


def test_first_tokens_are_timed_in_turn_and_rounds_that_lie_apart_are_named(
    grid: Any, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stock, asked = grid.ttft, []

    def noted(tree: Any, method: Any) -> Any:
        asked.append(type(method).__name__)
        _, leaf = stock(tree, method)
        return 1.0 + (asked[-1] == "SnapKv") * 0.15 * len(asked), leaf

    monkeypatch.setattr(grid, "ttft", noted)
    rows = grid.measure(model, 200, ["dense", "snapkv:0.10"], [1], [1], 2)
    assert asked == ["Dense", "SnapKv"] * 3
    assert [row["ttft_rounds_s"] for row in rows] == [[1.0, 1.0], [pytest.approx(1.6), pytest.approx(1.9)]]
    run = {"device": "cpu", "dtype": "float32", "torch": "2", "date": "2026-11-26", "rounds": 2}
    text = grid.table({"run": run, "rows": rows})
    assert grid.IN_TURN in text
    assert grid.ONE_BY_ONE in grid.table({"run": run, "rows": [{**row, "in_turn": False} for row in rows]})
    apart = [line for line in text.splitlines() if "ms to the first token" in line]
    assert apart == [
        f"- `{rows[1]['model']}`, `snapkv:0.10`, prompt {rows[1]['prompt_tokens']:,}: 1600 to 1900 ms to the first token"
    ]


def test_where_a_cache_method_seems_faster_to_the_first_token_than_dense_no_speedup_is_told(grid: Any) -> None:
    def rows(**first: float) -> list[dict[str, Any]]:
        facts = {
            "model": "m",
            "visual_tokens": 900,
            "batch": 1,
            "output_tokens": 1,
            "weights": "random",
            "prompt_tokens": 900,
        }
        return [
            {
                **facts,
                "method": name.replace("_", ":0."),
                "ttft_rounds_s": [seconds],
                "total_s": seconds,
                "in_turn": True,
            }
            for name, seconds in first.items()
        ]

    run = {"device": "cpu", "dtype": "float32", "torch": "2", "date": "2026-11-26", "rounds": 1}
    drift = grid.table({"run": run, "rows": rows(dense=0.054, visionzip_10=0.042, snapkv_10=0.046)})
    assert "- `m`, 900 visual tokens: no speed-ups are told" in drift
    assert "dense took 54 ms to the first token, and `snapkv:0.10`, which does all that dense does, 46" in drift
    assert "(1." not in drift
    steady = grid.table({"run": run, "rows": rows(dense=0.054, visionzip_10=0.042, snapkv_10=0.053)})
    assert "(1.29)" in steady
    assert "(1.02)" in steady
    assert grid.drifted(rows(snapkv_10=0.046)) == {}


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(one[key] == other[key] for key in ("batch", "output_tokens"))


def test_a_batch_that_does_not_fit_is_a_reason_and_the_others_stand(
    grid: Any, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stock = grid.decoding

    def small(model: Any, leaf: Any, batch: int, *others: Any) -> Any:
        if batch == 2:
            raise torch.cuda.OutOfMemoryError("wanted 9 GiB\nand more")
        return stock(model, leaf, batch, *others)

    monkeypatch.setattr(grid, "decoding", small)
    rows = grid.measure(model, 200, ["dense"], [2], [2, 3], 1)
    assert [row.get("reason") for row in rows] == ["wanted 9 GiB", None]
    run = {"device": "cpu", "dtype": "float32", "torch": "2", "date": "2026-11-26", "rounds": 1}
    assert "`dense`, batch 2: wanted 9 GiB" in grid.table({"run": run, "rows": rows})


@pytest.mark.parametrize(
    ("text", "words"),
    [("snapkv", "needs a budget"), ("dense:0.1", "has no budget"), ("snapvk:0.1", "snapvk"), ("h2o:2", "2")],
)
def test_a_method_that_cannot_be_meant_is_refused(grid: Any, text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        grid.named(text)
