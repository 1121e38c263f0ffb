"""Floors: counted work at measured rates, never above what was really taken."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from forms import sample
from toy_task import Toy

from effivlm.decoding.caches import KeptLayer, kv_bytes
from effivlm.decoding.quantised import Fp8Linear, plain_rows
from effivlm.decoding.weights import Packed
from effivlm.models._adapter import Adapter
from effivlm.records import Cell, Settings
from effivlm.timing import floors, timing
from effivlm.timing.floors import decoder_flops, rates, step_bytes, tower_flops
from effivlm.timing.timing import prepare_timing

CPU = torch.device("cpu")

pytestmark = pytest.mark.usefixtures("toy_task")


@pytest.fixture(autouse=True)
def one_task(toy_task: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    toy_task.samples = lambda limit, seed: [sample("one")]  # type: ignore[method-assign]
    monkeypatch.setattr(timing, "task_in", lambda *_: toy_task)


def test_rates_are_the_best_of_a_few_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = iter([0.5, 0.25, 1.0, 0.4, 0.3, 0.1, 0.2, 0.05, 0.3, 0.4])
    monkeypatch.setattr(floors, "timed_s", lambda work, device: (next(taken), work()))
    monkeypatch.setattr(floors, "SIZES", {"cpu": (64, 1000)})
    found = rates.__wrapped__(CPU, torch.float32)
    assert found.flops_per_s == pytest.approx(2 * 64**3 / 0.25)
    assert found.bytes_per_s == pytest.approx(2 * 1000 / 0.05)


def test_the_decoder_counts_its_matrices_and_half_of_a_square(model: Adapter) -> None:
    one, two = (decoder_flops(model, [length] * len(model.layers)) for length in (100, 200))
    text = model.model.config.text_config
    width = text.num_attention_heads * (text.hidden_size // text.num_attention_heads)
    attention = 2 * width * 100**2 * len(model.layers)
    assert two - 2 * one == pytest.approx(2 * attention)
    assert one > attention


def test_a_step_reads_the_decoder_and_the_cache_once(model: Adapter) -> None:
    layer = KeptLayer(torch.zeros(2, 7, 16), torch.zeros(2, 7, 16))
    held = kv_bytes([layer] * len(model.layers))
    whole = step_bytes(model, held)
    assert whole - step_bytes(model, 0) == held == 2 * 2 * 7 * 16 * 4 * len(model.layers)
    assert sum(weight.nbytes for layer in model.layers for weight in layer.parameters()) < whole < model.weight_bytes()


def test_packed_weights_count_as_the_products_they_make_and_the_bytes_they_take(model: Adapter) -> None:
    layer: Any = model.layers[0]
    lengths, own = [100] * len(model.layers), layer.self_attn.o_proj
    operations, whole = decoder_flops(model, lengths), step_bytes(model, 0)
    assert own.in_features % 16 == own.out_features % 16 == 0
    codes, scale = plain_rows(own.weight.data)
    layer.self_attn.o_proj = Fp8Linear(Packed(codes, scale), None, torch.bfloat16)
    try:
        assert decoder_flops(model, lengths) == operations
        assert whole - step_bytes(model, 0) == own.weight.nbytes - codes.nbytes - 4 * own.out_features
        assert model.weight_bytes() < sum(part.nbytes for part in (*model.model.parameters(), own.weight))
    finally:
        layer.self_attn.o_proj = own


def test_more_pictures_are_more_work_for_the_tower(model: Adapter) -> None:
    with model.seams():
        one, two = (tower_flops(model, model.prepare(sample(form))) for form in ("one", "two"))
    assert one > 0
    assert two != one


@pytest.mark.parametrize(("method", "share"), [("dense", 1.0), ("random_visual", 0.9), ("snapkv", 1.0)])
def test_timed_cells_carry_their_floor(method: str, share: float, model: Adapter) -> None:
    costs: dict[str, Any] = {}
    for name in ("dense", method):
        ready = prepare_timing(Cell("twin", name, "paper", "0.20", "toy"), model, Settings())
        costs[name] = ready.outcome("ttft", [ready.ttft()]).costs | ready.outcome("decode", [ready.decode()]).costs
    ours, dense = costs[method], costs["dense"]
    assert 0 < ours["ttft_floor_s"].median < ours["ttft_s"].median
    assert 0 < ours["decode_floor_ms_per_token"].median < ours["decode_ms_per_token"].median
    assert ours["ttft_floor_s"].median <= share * dense["ttft_floor_s"].median
    smaller = method == "dense" or ours["decode_floor_ms_per_token"].median < dense["decode_floor_ms_per_token"].median
    assert smaller
    assert ours["device_flops_per_s"].median == dense["device_flops_per_s"].median > 1e8
