"""More cells than memory holds at once are decoded in batches that it does hold, and say the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import twins
from toy_task import cells

from effivlm.decoding.caches import row_bytes
from effivlm.decoding.eager import Start
from effivlm.decoding.engine import Captured, Eager
from effivlm.models._adapter import Adapter
from effivlm.models._sources import resolve
from effivlm.records import Outcome, Settings
from effivlm.run import group
from effivlm.run.group import open_model, run_group
from effivlm.run.tree import Tree

ASKED = cells(
    methods=["dense", "snapkv", "h2o", "fastv", "visionzip", "streaming_llm", "adakv"], keeps=("0.30", "0.60")
)
pytestmark = pytest.mark.usefixtures("toy_task")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    folder = twins.build("qwen2_vl", tmp_path_factory.mktemp("split"))
    return open_model(resolve(f"twin={folder}"), Settings())


class Following(Captured):
    """Steps that follow, without a GPU to capture them on."""

    name = Eager.name  # type: ignore[misc]


class Small:
    """Memory in which no more than `rows` starts fit at once; notes the batches that were tried."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
        self.tried: list[int] = []
        for kind in (Eager, Captured):
            for name in ("followed", "chosen"):
                monkeypatch.setattr(kind, name, self._bounded(getattr(kind, name), rows))

    def _bounded(self, right: Any, rows: int) -> Any:
        def bounded(engine: Any, starts: Sequence[Start], *given: Any) -> Any:
            self.tried.append(len(starts))
            if len(starts) > rows:
                raise torch.cuda.OutOfMemoryError(f"{len(starts)} rows do not fit\nmore words")
            return right(engine, starts, *given)

        return bounded


def same(found: Sequence[Outcome], right: Sequence[Outcome]) -> bool:
    return [replace(one, remarks=()) for one in found] == [replace(one, remarks=()) for one in right]


@pytest.fixture(params=[Eager, Following])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type:
    monkeypatch.setattr(group, "engine_for", lambda step, device, *_: request.param(step, device))
    return request.param  # type: ignore[no-any-return]


@pytest.mark.parametrize("rows", [7, 3, 2])
def test_a_batch_that_runs_out_of_memory_is_halved_and_answers_stay(
    rows: int, engine: type, model: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = run_group(ASKED, model, Settings(limit=2))
    small = Small(monkeypatch, rows)
    found = run_group(ASKED, model, Settings(limit=2))
    assert max(small.tried) > rows
    assert same(found, right)
    assert {one.status for one in found if one.cell.preset == "paper"} == {"ok"}, [one.reason for one in found]
    words = "memory ran out, and cells were decoded in smaller batches, for"
    assert all(any(remark.startswith(words) for remark in one.remarks) for one in found if one.status == "ok")


def test_only_what_fits_no_memory_at_all_is_broken(
    engine: type, model: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    Small(monkeypatch, 0)
    for one in run_group(ASKED[:3], model, Settings(limit=1)):
        assert one.status == "failed"
        assert "OutOfMemoryError: 1 rows do not fit" in one.reason


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_prompts_are_grown_no_further_than_memory_is_given(
    share: float, engine: type, model: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[float] = []
    followed = engine.followed  # type: ignore[attr-defined]

    def noting(self: Any, starts: Sequence[Start], *given: Any) -> Any:
        batches.append(sum((1 + engine.copies) * row_bytes(start.cache, 6) for start in starts))  # type: ignore[attr-defined]
        return followed(self, starts, *given)

    monkeypatch.setattr(engine, "followed", noting)
    right = run_group(ASKED, model, Settings(limit=2))
    whole, batches[:] = max(batches), []
    monkeypatch.setattr(group, "batch_bytes", lambda device: round(share * whole))
    assert run_group(ASKED, model, Settings(limit=2)) == right
    dense = whole / len(ASKED)
    assert len(batches) > 2 * 2
    assert max(batches) <= share * whole + 4 * dense, "dense and its second run come on top"


@pytest.mark.parametrize(("at", "kinds"), [("unsure_leaf", ("H2o", "AdaKv")), ("begun", ("H2o", "FastV"))])
def test_a_cell_that_is_out_of_memory_is_asked_again_once_those_before_it_are_decoded(
    at: str, kinds: tuple[str, ...], engine: type, model: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = run_group(ASKED, model, Settings(limit=2))
    stock, full_for = getattr(Tree, at), set[tuple[str, str]]()

    def full(self: Tree, method: Any, *given: Any) -> Any:
        name = (self.sample.id, repr(method))
        if type(method).__name__ in kinds and method.parts and name not in full_for:
            full_for.add(name)
            raise torch.cuda.OutOfMemoryError("no room")
        return stock(self, method, *given)

    monkeypatch.setattr(Tree, at, full)
    assert run_group(ASKED, model, Settings(limit=2)) == right
    assert len(full_for) >= 4, "memory must have run out"


def test_a_first_token_that_never_fits_breaks_its_cell_alone(
    engine: type, model: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = run_group(ASKED, model, Settings(limit=2))
    begin = Tree.begun

    def full(self: Tree, method: Any, leaf: Any) -> Any:
        if type(method).__name__ in ("H2o", "FastV"):
            raise torch.cuda.OutOfMemoryError("no room for a first token")
        return begin(self, method, leaf)

    monkeypatch.setattr(Tree, "begun", full)
    for one, whole in zip(run_group(ASKED, model, Settings(limit=2)), right, strict=True):
        if one.cell.method in ("h2o", "fastv") and whole.status == "ok":
            assert "OutOfMemoryError: no room for a first token" in one.reason
        else:
            assert one == whole


def test_captured_steps_are_kept_as_far_as_their_caches_fit(model: Adapter) -> None:
    with model.seams():
        from forms import sample

        from effivlm.methods.dense import Dense

        tree = Tree(model, sample("one"), [Dense()])
        start = tree.leaf(Dense()).start
        size = row_bytes(start.cache, 3)
        for most, kept in ((2 * 1.25 * size, 1), (10 * size, 3)):
            engine = Captured(model.step, model.device, most_bytes=most)
            for rows in (1, 2, 3):
                engine.greedy([start] * rows, 4, ())
            assert len(engine._replays) == kept
            assert engine.greedy([start] * 3, 4, ()) == Eager(model.step, model.device).greedy([start] * 3, 4, ())
            assert engine.captures == 3
            engine.forget()
            assert not engine._replays


def test_no_more_is_planned_than_half_of_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    from effivlm.decoding import capacity

    monkeypatch.setattr(capacity, "free_bytes", lambda device: 1000)
    assert capacity.batch_bytes(torch.device("cuda")) == 500
    assert capacity.batch_bytes(torch.device("cpu")) == capacity.CPU_BYTES


@pytest.mark.skipif(not torch.cuda.is_available(), reason="steps are captured on CUDA")
def test_captured_steps_are_halved_on_a_gpu_and_answers_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = twins.build("qwen2_vl", tmp_path / "twin")
    settings = Settings(limit=2, device="cuda:0")
    loaded = open_model(resolve(f"twin={folder}"), settings)
    right = run_group(ASKED, loaded, settings)
    assert right[0].engine == Captured.name
    Small(monkeypatch, 3)
    assert same(run_group(ASKED, loaded, settings), right)
