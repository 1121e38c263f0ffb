"""Timings: repeated until they are settled, with a batch beside them, and with what the driver said meanwhile."""

from __future__ import annotations

import itertools
import time
from functools import partial
from typing import Any

import pytest
import torch
from forms import sample
from toy_task import Toy

from effivlm.decoding.capacity import largest_batch
from effivlm.decoding.engine import Eager, captures
from effivlm.decoding.replay import compiled
from effivlm.models._adapter import Adapter
from effivlm.records import Cell, Settings
from effivlm.run.group import method_of
from effivlm.run.tree import Tree
from effivlm.seams.meters import Laps, peak_memory_bytes, reclaim, timed_s
from effivlm.timing import rounds, timing
from effivlm.timing.rounds import LEAST, MOST, rounds_of, spread, unsettled
from effivlm.timing.timing import STEPS, Timing, prepare_timing
from effivlm.timing.watch import Seen

CPU = torch.device("cpu")
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="what a GPU's meters see")


@pytest.fixture
def one_task(toy_task: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    toy_task.samples = lambda limit, seed: [sample("text")]  # type: ignore[method-assign]
    monkeypatch.setattr(timing, "task_in", lambda *_: toy_task)


def ready(model: Adapter, method: str = "snapkv", **settings: Any) -> Timing:
    return prepare_timing(Cell("twin", method, "paper", "0.40", "toy"), model, Settings(**settings))


def test_steady_rounds_end_as_soon_as_their_median_has_an_interval() -> None:
    assert rounds_of(lambda: 2.0) == [2.0] * LEAST
    assert unsettled("ttft", [2.0] * LEAST) == []


def test_unsteady_rounds_are_repeated_until_settled_or_many(monkeypatch: pytest.MonkeyPatch) -> None:
    calming = itertools.chain([1.0, 2.0, 3.0], itertools.repeat(2.0))
    settled = rounds_of(lambda: next(calming))
    assert LEAST < len(settled) < MOST
    assert spread(settled) <= rounds.NARROW < spread(settled[:-1])
    wild = itertools.cycle([1.0, 3.0])
    many = rounds_of(lambda: next(wild))
    assert len(many) == MOST
    assert unsettled("decode", many) == [
        "decode is not settled: after 50 rounds its median's interval is 100% wide, not 2%"
    ]
    monkeypatch.setattr(rounds, "PATIENCE_S", 0.0)
    assert len(rounds_of(lambda: next(wild))) == LEAST


def test_a_cpu_is_timed_in_the_fewest_rounds_and_passes(
    model: Adapter, one_task: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed, wild = ready(model, batch=2), itertools.cycle([1.0, 3.0])
    passes: list[str] = []

    def passed(part: str) -> float:
        passes.append(part)
        return next(wild)

    monkeypatch.setattr(timed, "ttft", lambda: passed("ttft"))
    monkeypatch.setattr(timed, "_step_ms", lambda paced: passed("step"))
    assert [len(timed.rounds(part)) for part in ("ttft", "decode")] == [LEAST, LEAST]
    assert passes == ["ttft"] * LEAST + ["step"] * LEAST, "what got it ready has warmed it up"
    monkeypatch.setattr(Timing, "_on_cpu", False)
    passes.clear()
    timed.rounds("ttft")
    assert len(passes) == MOST + 1, "anywhere else there is a warm-up, and patience"
    monkeypatch.setattr(Timing, "_on_cpu", True)
    monkeypatch.setattr(Tree, "with_inputs", lambda *_: pytest.fail("decoding went through the prompt once more"))
    outcome = timed.outcome("decode", [1.0] * LEAST)
    assert sorted(outcome.costs["batch_decode_ms_per_step"].rounds) == [1.0] * (LEAST // 2) + [3.0] * (LEAST // 2)


@pytest.mark.parametrize("room", [0, 1, 2, 3, 7, 100, 1000, 4095, 4096, 9999])
def test_the_largest_batch_is_found_by_trying(room: int) -> None:
    tried: list[int] = []

    def fits(batch: int) -> bool:
        tried.append(batch)
        return batch <= room

    found = largest_batch(fits)
    assert min(room, 4096) - max(1, room // 50) <= found <= room
    assert not found or found in tried
    assert len(tried) < 22
    assert (found == room) or room > 50


def test_decoding_of_a_batch_stands_beside_that_of_one(model: Adapter, one_task: None) -> None:
    one, three = (ready(model, batch=batch) for batch in (1, 3))
    value = three.decode()
    costs = three.outcome("decode", [value]).costs
    assert costs["batch"].rounds == (3.0,)
    steps, tokens = costs["batch_decode_ms_per_step"], costs["batch_tokens_per_s"]
    assert len(steps.rounds) >= LEAST
    assert all(rate == pytest.approx(3e3 / step) for rate, step in zip(tokens.rounds, steps.rounds, strict=True))
    assert costs["batch_decode_floor_ms_per_step"].median > costs["decode_floor_ms_per_token"].median
    assert "largest_batch" not in costs, "a CPU's memory is not tried"
    one.decode()
    assert not [name for name in one.outcome("decode", [value]).costs if "batch" in name]


def test_a_drawn_page_has_about_the_length_that_was_asked_for_or_none_is_drawn(model: Adapter, one_task: None) -> None:
    asked = {"llava_onevision": 125, "qwen2_vl": 61, "internvl2_5": 75}[model.source.family]
    drawn = ready(model, prompt=asked).outcome("ttft", [1.0]).costs["prompt_tokens"].median
    assert abs(drawn - asked) <= 7
    assert drawn != ready(model).outcome("ttft", [1.0]).costs["prompt_tokens"].median
    with pytest.raises(ValueError, match="no picture makes a prompt of about 9000 tokens for twin; the nearest has"):
        ready(model, prompt=9000)


def test_a_batch_that_does_not_fit_leaves_its_reason_and_the_rest(
    model: Adapter, one_task: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = ready(model, batch=64)
    value, stock = timed.decode(), timing.Paced

    def full(step: Any, start: Any, steps: int, device: torch.device, batch: int, asked: str) -> Any:
        if batch > 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nmore lines")
        return stock(step, start, steps, device, batch, asked)

    monkeypatch.setattr(timing, "Paced", full)
    outcome = timed.outcome("decode", [value])
    assert outcome.costs["decode_ms_per_token"].rounds == (value,)
    assert "batch_decode_ms_per_step" not in outcome.costs
    assert outcome.remarks == ("no decoding at batch 64: CUDA out of memory. Tried to allocate 20.00 GiB.",)


class FakeWatch:
    """Says what it is told to; counts how often it was asked between rounds."""

    samples = 0
    seen = Seen(energy_j=32.0, seconds=1.0, clock_mhz=(1980,), remarks=("1 other process on the GPU",))

    def __enter__(self) -> FakeWatch:
        return self

    def __exit__(self, *_: object) -> None:
        self.left = True

    def sample(self) -> None:
        self.samples += 1


def test_what_the_driver_says_goes_with_the_rounds_that_it_watched(
    model: Adapter, one_task: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = FakeWatch()
    monkeypatch.setattr(timing.Watch, "of", lambda device: watch)
    timed = ready(model)
    timed.decode()
    with timed.watched():
        values = [timed.decode() for _ in range(4)]
    outcome = timed.outcome("decode", values)
    assert watch.samples == 4
    assert outcome.costs["decode_energy_j_per_token"].rounds == (32.0 / (4 * STEPS),)
    assert "1 other process on the GPU" in outcome.remarks
    monkeypatch.setattr(timing.Watch, "of", lambda device: None)
    with timed.watched():
        timed.decode()
    plain = timed.outcome("decode", values)
    assert "decode_energy_j_per_token" not in plain.costs
    assert plain.remarks == ()


def test_steps_are_captured_only_where_they_can_be() -> None:
    assert captures(torch.device("cuda"))
    assert not captures(CPU)
    assert not captures(torch.device("cuda"), Eager.name)
    assert not captures(torch.device("cuda"), "auto", spread=True)
    with pytest.raises(ValueError, match="wants the whole model on one GPU, not cpu"):
        captures(CPU, "cuda_graph")
    with pytest.raises(ValueError, match="not several"):
        captures(torch.device("cuda"), "cuda_graph", spread=True)


@GPU
def test_a_gpus_meters_see_a_planted_delay_and_a_planted_allocation() -> None:
    device = torch.device("cuda")
    cycles = 200_000_000
    plain, _ = timed_s(lambda: torch.cuda._sleep(1), device)
    delayed, _ = timed_s(lambda: torch.cuda._sleep(cycles), device)
    again, _ = timed_s(lambda: torch.cuda._sleep(2 * cycles), device)
    assert delayed > 0.05 > plain
    assert again == pytest.approx(2 * delayed, rel=0.1)
    before, _ = peak_memory_bytes(lambda: None, device)
    after, _ = peak_memory_bytes(lambda: torch.ones(1 << 28, dtype=torch.uint8, device=device), device)
    assert 1 << 28 <= after - before < 1.1 * (1 << 28)


def test_laps_are_counted_from_one_start() -> None:
    laps = Laps(CPU)
    assert laps.seconds == []
    for _ in range(2):
        time.sleep(0.01)
        laps.mark()
    first, second = laps.seconds
    assert 0.01 <= first <= second - 0.01


@GPU
def test_laps_of_a_gpu_are_those_of_its_work() -> None:
    device = torch.device("cuda")
    cycles = 50_000_000
    Laps(device).mark()
    start, laps = time.perf_counter(), Laps(device)
    for _ in range(3):
        torch.cuda._sleep(cycles)
        laps.mark()
    assert time.perf_counter() - start < 0.02, "marking does not wait"
    first, second, third = laps.seconds
    assert first > 0.01
    assert second == pytest.approx(2 * first, rel=0.1)
    assert third == pytest.approx(3 * first, rel=0.1)


@GPU
def test_a_gpus_timings_agree_with_themselves_and_say_which_engine_ran(model: Adapter, one_task: None) -> None:
    on_gpu = type(model).load(model.source, "cuda", "bfloat16")
    settings = Settings(device="cuda", dtype="bfloat16", batch=4)
    timed = prepare_timing(Cell("twin", "snapkv", "paper", "0.40", "toy"), on_gpu, settings)
    timed.decode()  # matrix products take their workspaces, which they keep
    timed._paced = None
    reclaim(on_gpu.device)
    held = torch.cuda.memory_allocated()
    for part, engine in (("ttft", "compiled"), ("decode", "cuda_graph")):
        measurement = getattr(timed, part)
        measurement()
        values = []
        for _ in range(2):
            with timed.watched():
                start = time.perf_counter()
                values.append(rounds_of(measurement))
            assert time.perf_counter() - start >= sum(values[-1]) * (1.0 if part == "ttft" else STEPS / 1e3)
        outcome = timed.outcome(part, values[0])
        assert outcome.engine == engine
        low, high = sorted(values[1])[0], sorted(values[1])[-1]
        assert low / 1.2 <= outcome.costs[next(iter(outcome.costs))].median <= 1.2 * high
    assert outcome.costs["largest_batch"].median >= 4
    timed = outcome = measurement = None
    reclaim(on_gpu.device)
    assert torch.cuda.memory_allocated() <= held, "what the search for the largest batch took is there again"
    on_gpu.close()


def test_layers_are_compiled_inside_and_as_they_were_outside(model: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def compiling(forward: Any, dynamic: bool) -> Any:
        asked.append(dynamic)
        return lambda *args, **kwargs: forward(*args, **kwargs)

    monkeypatch.setattr(torch, "compile", compiling)
    before = [layer.forward for layer in model.layers]
    own = lambda *args, **kwargs: before[0](*args, **kwargs)  # noqa: E731
    model.layers[0].forward = own  # as accelerate does

    def broken() -> None:
        with compiled(model.layers, dynamic=True):
            assert all(layer.forward != plain for layer, plain in zip(model.layers, before, strict=True))
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        broken()
    assert model.layers[0].forward is own
    del model.layers[0].forward
    assert [layer.forward for layer in model.layers] == before
    assert asked == [True] * len(model.layers)


def test_a_traced_prefill_says_what_a_plain_one_says_and_still_shows_the_tower(
    model: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        torch, "compile", partial(torch.compile, backend="eager")
    )  # traced and broken up, nothing fused
    method = method_of(Cell("twin", "visionzip", "paper", "0.40", "toy"))
    with model.seams():
        plain = Tree(model, sample("two"), [method]).leaf(method)
        with compiled(model.layers, True, model.beside(True)):
            traced = Tree(model, sample("two"), [method]).leaf(method)
    assert traced.start.token == plain.start.token
    for one, other in zip(traced.cache, plain.cache, strict=True):
        torch.testing.assert_close(one.keys, other.keys)
