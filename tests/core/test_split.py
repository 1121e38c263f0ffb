"""Where the time to first token goes: a planted delay shows in the part where it was planted, and nowhere else."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from forms import sample
from toy_task import Toy

from effivlm.models._adapter import Adapter
from effivlm.records import Cell, Settings
from effivlm.run import views
from effivlm.seams.meters import Spans
from effivlm.timing import timing
from effivlm.timing.timing import PARTS, Timing, prepare_timing

DELAY = 0.1

pytestmark = pytest.mark.usefixtures("toy_task")


@pytest.fixture(autouse=True)
def one_task(toy_task: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    toy_task.samples = lambda limit, seed: [sample("two")]  # type: ignore[method-assign]
    monkeypatch.setattr(timing, "task_in", lambda *_: toy_task)


def later(function: Any) -> Any:
    def slow(*args: Any, **kwargs: Any) -> Any:
        time.sleep(DELAY)
        return function(*args, **kwargs)

    return slow


def split(model: Adapter, method: str, prepared: Timing | None = None) -> dict[str, float]:
    ready = prepared or prepare_timing(Cell("twin", method, "paper", "0.40", "toy"), model, Settings())
    costs = ready.outcome("ttft", [1.0]).costs
    return {name: costs[name].median for name in ("image_s", *(f"{part}_s" for part in PARTS)) if name in costs}


def test_what_a_part_does_within_another_counts_for_itself_alone() -> None:
    spans = Spans(torch.device("cpu"))

    def outer() -> int:
        time.sleep(DELAY)
        spans("inner", lambda: time.sleep(3 * DELAY))
        spans("inner", lambda: time.sleep(DELAY))
        return 7

    assert spans("outer", outer) == 7
    assert spans.seconds["inner"] == pytest.approx(4 * DELAY, rel=0.5)
    assert DELAY <= spans.seconds["outer"] < 2.5 * DELAY


@pytest.mark.parametrize(
    ("method", "part", "where", "name"),
    [
        ("dense", "image_s", "model", "prepare"),
        ("dense", "tower_s", "model", "encode"),
        ("dense", "prefill_s", "model", "prefill"),
        ("dense", "first_s", "model", "head"),
        ("random_visual", "method_s", "method", "select"),
        ("fastv", "method_s", "method", "select"),
        ("snapkv", "method_s", "method", "compress"),
        ("h2o", "method_s", "views", "received"),
    ],
)
def test_a_planted_delay_shows_in_its_part_alone(
    method: str, part: str, where: str, name: str, model: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = prepare_timing(Cell("twin", method, "paper", "0.40", "toy"), model, Settings())
    before = split(model, method, ready)
    owner: Any = {"model": model, "method": type(ready.method), "views": views}[where]
    monkeypatch.setattr(owner, name, later(getattr(owner, name)))
    after = split(model, method, ready)
    assert set(after) == set(before)
    assert after[part] - before.get(part, 0.0) > 0.8 * DELAY
    assert all(after[other] - before[other] < 0.5 * DELAY for other in after if other != part)


def test_a_method_that_does_nothing_has_no_part(model: Adapter) -> None:
    assert "method_s" not in split(model, "dense")
