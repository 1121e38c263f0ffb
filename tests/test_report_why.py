"""What limits a timing, from constructed records: each limit has one, and nothing is said where nothing is known."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from effivlm.records import Cost, Outcome
from effivlm.report.costs import FLOORS, SPEEDUPS
from effivlm.report.document import build
from effivlm.report.payload import payload
from effivlm.report.why import ALIKE, HOST, WHOLE, why
from tests.outcomes import END, HEADER, cell, quality, timed

BASELINES = Path(__file__).parents[1] / "reports" / "baselines"
TTFT = {"ttft_s": 0.100, "ttft_floor_s": 0.060, "tower_s": 0.020, "prefill_s": 0.075}
DENSE = {"ttft_s": 0.200, "ttft_floor_s": 0.120, "tower_s": 0.020, "prefill_s": 0.175}
STEP = {"kv_bytes": 3e8, "device_bytes_per_s": 1e12, "decode_floor_ms_per_token": 10.0, "decode_ms_per_token": 12.0}
BATCH = {"batch": 8.0, "batch_decode_ms_per_step": 14.0, "batch_decode_floor_ms_per_step": 12.1}


@pytest.mark.parametrize(
    ("costs", "faster", "limit", "text"),
    [
        ({"tower_s": 0.070, "prefill_s": 0.020, "ttft_floor_s": 0.08}, 1.8, "tower",
         "1.80 times as fast to the first token: the vision tower is 70% of it, which nothing behind the tower shortens"),
        ({"method_s": 0.110, "ttft_s": 0.210, "ttft_floor_s": 0.1}, 0.97, "method",
         "no faster to the first token: its own work takes 110.0 ms and saves 100.0 ms of prefill"),
        ({"method_s": 0.030, "prefill_s": 0.175, "ttft_s": 0.23, "ttft_floor_s": 0.12}, 0.87, "method",
         "slower to the first token, 0.87 times as fast: its own work takes 30.0 ms and saves no prefill"),
        ({"prefill_s": 0.176, "ttft_s": 0.2, "ttft_floor_s": 0.12}, 1.01, "prefill",
         "no faster to the first token: the prefill is 88% of it and sees the whole prompt, as dense's does"),
        ({}, 2.0, "prefill", "2.00 times as fast to the first token: the prefill is 75% of it, and the whole takes 1.7"
                             " times what its operations need on this device"),
        ({"tower_s": 0.046, "prefill_s": 0.037, "ttft_floor_s": 0.03}, 2.6, "tower",
         "2.60 times as fast to the first token: the vision tower is 46% of it, which nothing behind the tower shortens"),
        ({"method_s": 0.016, "prefill_s": 0.176, "ttft_s": 0.205, "ttft_floor_s": 0.12}, 0.98, "prefill",
         "no faster to the first token: the prefill is 86% of it and sees the whole prompt, as dense's does"),
        ({"ttft_floor_s": 0.02}, 2.0, "host", "2.00 times as fast to the first token: it takes 5.0 times what its"
                                              " operations need on this device, so launches and the host set the pace"),
    ],
)  # fmt: skip
def test_each_limit_of_the_time_to_first_token_is_told(
    costs: dict[str, float], faster: float, limit: str, text: str
) -> None:
    assert why(TTFT | costs, DENSE, {"ttft": faster})["ttft"] == {"limit": limit, "text": text}


@pytest.mark.parametrize(
    ("word", "costs", "faster", "limit", "text"),
    [
        ("decode", {}, 1.02, "bytes", "no faster at batch 1: weights are 97% of the bytes of a step"),
        ("decode", {"kv_bytes": 8e9}, 1.6, "bytes", "1.60 times as fast at batch 1: the cache is 80% of the bytes of a step"),
        ("decode", {"decode_ms_per_token": 40.0}, None, "host",
         "limited at batch 1: a step takes 4.0 times what its bytes need on this device, so launches and the host set the"
         " pace (weights are 97% of the bytes of a step)"),
        ("batch", BATCH, 1.1, "batch", "1.10 times as fast at batch 8: weights are 80% of the bytes of a step; the cache"
                                       " counts for more in a larger batch"),
        ("batch", BATCH | {"batch_decode_floor_ms_per_step": 4.0, "batch_decode_ms_per_step": 5.0}, 1.9, "bytes",
         "1.90 times as fast at batch 8: the cache is 60% of the bytes of a step"),
    ],
)  # fmt: skip
def test_each_limit_of_decoding_is_told(
    word: str, costs: dict[str, float], faster: float | None, limit: str, text: str
) -> None:
    assert why(STEP | costs, {}, {word: faster})[word] == {"limit": limit, "text": text}


@pytest.mark.parametrize("lacks", ["ttft_floor_s", "decode_floor_ms_per_token", "kv_bytes"])
def test_nothing_is_said_where_the_record_lacks_what_would_tell(lacks: str) -> None:
    known = TTFT | STEP
    told = set(why(known, DENSE, {}))
    without = set(why({name: value for name, value in known.items() if name != lacks}, DENSE, {}))
    assert told - without == {"ttft" if lacks == "ttft_floor_s" else "decode"}


RECORDED = ("gpu_efficiency", "gpu_efficiency_qwen2_vl", "gpu_efficiency_h200", "gpu_efficiency_38b")


def recorded() -> Iterator[tuple[str, dict[str, float], dict[str, float]]]:
    """Method, medians and dense's medians of every cell of the committed GPU runs that was timed as dense was."""
    for name in RECORDED:
        cells = json.loads((BASELINES / f"{name}.json").read_text(encoding="utf-8"))["cells"]
        medians = [(one, {word: cost["median"] for word, cost in one["costs"].items()}) for one in cells]
        dense = {one["model"]: costs for one, costs in medians if one["method"] == "dense"}
        yield from ((one["method"], costs, dense[one["model"]]) for one, costs in medians if "prefill_s" in costs)


def test_from_where_a_timing_is_the_hosts_is_what_the_committed_runs_show() -> None:
    """A device-bound prefill saves at least the time that the operations need which it leaves out."""
    devices, hosts = [], []
    for _, costs, dense in recorded():
        ratio = costs["ttft_s"] / costs["ttft_floor_s"]
        saved, spared = (dense[name] - costs[name] for name in ("prefill_s", "ttft_floor_s"))
        if costs["prefill_s"] >= WHOLE * dense["prefill_s"]:
            devices.append(ratio)
            devices += [costs[SPEEDUPS[w]] / costs[FLOORS[w]] for w in ("decode", "batch") if SPEEDUPS[w] in costs]
        elif costs["prefill_s"] > costs["tower_s"] and saved < spared:
            hosts.append(ratio)
    assert len(devices) > 100
    assert hosts
    assert max(devices) < HOST < min(hosts)
    assert round((max(devices) * min(hosts)) ** 0.5, 1) == HOST


def test_a_whole_prefill_and_one_of_fewer_tokens_lie_on_either_side_in_the_committed_runs() -> None:
    shares = sorted(costs["prefill_s"] / dense["prefill_s"] for _, costs, dense in recorded())
    gap, above = max((high - low, high) for low, high in pairwise(shares))
    assert above - gap < WHOLE < above
    assert gap > 0.3


def test_a_second_session_of_the_same_cells_differs_by_less_than_what_counts_as_alike() -> None:
    stored = (
        json.loads((BASELINES / f"{name}.json").read_text()) for name in ("gpu_efficiency", "gpu_efficiency_again")
    )
    first, again = ({one["id"]: one["costs"] for one in document["cells"]} for document in stored)
    apart = [
        abs(costs[name]["median"] / first[one][name]["median"] - 1)
        for one, costs in again.items()
        for name in SPEEDUPS.values()
    ]
    assert len(apart) == 6
    assert max(apart) < ALIKE


def measured(method: str, keep: str, ttft: float, **split: float) -> list[Outcome]:
    which = cell(method, keep)
    costs = {"ttft_s": Cost((ttft,) * 6), **{name: Cost((value,)) for name, value in split.items()}}
    outcome: Any = timed(which, "ttft", ttft)
    return [quality(which, [1.0] * 8), Outcome(which, "e" * 20, "ok", part="ttft", costs=costs, engine=outcome.engine)]


def test_the_document_compares_with_dense_of_the_same_engine_and_the_page_holds_every_sentence() -> None:
    dense = measured("dense", "1.00", 0.2, ttft_floor_s=0.12, tower_s=0.02, prefill_s=0.176)
    caches = measured("snapkv", "0.10", 0.2, ttft_floor_s=0.12, tower_s=0.02, prefill_s=0.176, method_s=0.001)
    document = build(HEADER, [*dense, *caches], END)
    found = {one["method"]: one["why"]["ttft"] for one in document["cells"]}
    assert found["dense"]["text"].startswith(
        "limited to the first token: the prefill is 88% of it, and the whole takes"
    )
    assert found["snapkv"]["text"].endswith("sees the whole prompt, as dense's does")
    page = payload(document)
    for (place, *numbers), one in zip((row[0] for row in page["cells"]["columns"]["why"]), found.values(), strict=True):
        text = page["reasons"][place]
        for number in numbers:
            text = text.replace("#", number, 1)
        assert text == f"TTFT: {one['text']}"
