"""Kernels for packed weights on a GPU: products of every number of rows, and captured steps of every configuration.

The products of few rows run in Triton's interpreter too, if that was asked for (TRITON_INTERPRET=1) and Triton is installed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from test_rotary import cut, start_of
from torch import Tensor, nn
from toy_session import ROOT

from effivlm.decoding.caches import ForkedCache
from effivlm.decoding.eager import Start
from effivlm.decoding.quantised import Fp8Linear, Int4Linear, QuantizedLinear, plain_rows
from effivlm.decoding.replay import Replay, compiled
from effivlm.decoding.weights import Packed, together
from effivlm.kernels import int4
from effivlm.models import _kernels
from effivlm.models._adapter import Adapter
from effivlm.models._kernels import able, install
from effivlm.models._quantization import Scheme
from effivlm.models._sources import shapes

sys.path.insert(0, str(ROOT / "bench_tests" / "studies"))
from rounded import rounded_fp8, rounded_int4

HAVE_GPU = torch.cuda.is_available()
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1" and find_spec("triton") is not None
HOPPER = HAVE_GPU and torch.cuda.get_device_capability() >= (9, 0)
GPU = pytest.mark.skipif(not HOPPER, reason="e4m3 is multiplied on CUDA from 9.0 on")
HUMMING = pytest.mark.skipif(not (HAVE_GPU and int4.installed()), reason="needs CUDA and humming-kernels")
DEVICE = "cuda" if HAVE_GPU else "cpu"
ROUND: dict[str, Callable[[Tensor], Packed]] = {"fp8": rounded_fp8, "int4": rounded_int4}
KIND: dict[str, type[QuantizedLinear]] = {"fp8": Fp8Linear, "int4": Int4Linear}
SCHEMES = {
    "fp8": Scheme("plain", 8, activations=8, dynamic=True, floating=True),
    "int4": Scheme("packed", 4, 128),
}


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def off(found: Tensor, expected: Tensor) -> float:
    """Relative error over all entries."""
    return float((found.float() - expected.float()).norm() / expected.float().norm())


@pytest.mark.skipif(not (HOPPER or INTERPRETED), reason="the kernel runs on CUDA")
@pytest.mark.parametrize("rows", [1, 3, 16, 17, 64])
@pytest.mark.parametrize(("outputs", "inputs"), [(16, 16), (80, 640), (144, 1040), (64, 3584), (200, 4112)])
def test_parts_of_a_product_of_few_rows_sum_up_to_it(rows: int, outputs: int, inputs: int) -> None:
    from effivlm.kernels.fp8 import few_rows

    codes, weight = plain_rows(drawn(rows, rows, inputs))[0], plain_rows(drawn(outputs, outputs, inputs))[0]
    parts = few_rows(codes, weight)
    assert parts.shape[1:] == (rows, outputs)
    assert off(parts.sum(0), codes.float() @ weight.float().T) < 1e-3


@GPU
@pytest.mark.parametrize(("rows", "inputs"), [(1, 16), (3, 100), (65, 3584), (7, 18944)])
def test_rows_are_rounded_as_plain_pytorch_rounds_them(rows: int, inputs: int) -> None:
    from effivlm.kernels.fp8 import quantised

    entered = drawn(rows, rows, inputs).bfloat16()
    entered[0] = 0
    (codes, scale), (plain, expected) = quantised(entered), plain_rows(entered)
    assert torch.equal(scale, expected)
    assert float((codes.float() != plain.float()).float().mean()) < 1e-3  # a quotient may lie on either side of a half
    assert torch.equal(codes[0].float(), torch.zeros(inputs, device=DEVICE))


@GPU
@pytest.mark.parametrize("worst", [torch.nan, torch.inf])
@pytest.mark.parametrize("rows", [3, 100])
def test_what_is_not_finite_stays_so_and_in_its_row(worst: float, rows: int) -> None:
    layer = Fp8Linear(rounded_fp8(drawn(0, 64, 128)), None, torch.bfloat16)
    entered = drawn(1, rows, 128).bfloat16()
    entered[1, 5] = worst
    found = layer(entered)
    assert found[1].isnan().all()
    assert found[[0, 2]].isfinite().all()


@GPU
@pytest.mark.parametrize("rows", [1, 3, 17, 64, 65, 300])
@pytest.mark.parametrize(("outputs", "inputs"), [(64, 128), (144, 1040), (4608, 3584)])
def test_products_of_e4m3_are_those_of_what_it_stands_for(rows: int, outputs: int, inputs: int) -> None:
    weights, bias = rounded_fp8(drawn(0, outputs, inputs)), drawn(1, outputs).bfloat16()
    entered = drawn(2, rows, inputs).bfloat16()
    codes, scale = plain_rows(entered)
    expected = (codes.float() * scale) @ weights.dense(torch.float32).T + bias.float()
    assert off(Fp8Linear(weights, bias, torch.bfloat16)(entered[None])[0], expected) < 1e-2


@HUMMING
@pytest.mark.parametrize("asymmetric", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("outputs", "inputs"), [(128, 128), (384, 384), (4608, 3584)])
def test_products_of_four_bits_are_those_of_what_they_stand_for(
    outputs: int, inputs: int, dtype: torch.dtype, asymmetric: bool
) -> None:
    weights = rounded_int4(drawn(0, outputs, inputs), asymmetric)
    layer = Int4Linear(weights, None, dtype)
    for rows in (1, 3, 17, 64, 65, 300):
        entered = drawn(rows, rows, inputs).to(dtype)
        assert off(layer(entered), entered.float() @ weights.dense(torch.float32).T) < 1e-2


def captured_logits(model: Adapter, start: Start) -> Tensor:
    """Logits [2, vocab] of a compiled and captured step of two copies of a prompt."""
    kept: list[Tensor] = []

    def step(tokens: Tensor, positions: Tensor, cache: Any) -> Tensor:
        kept[:] = [model.step(tokens, positions, cache)]
        return kept[0]

    with model.seams(), compiled(model.layers, False, model.beside(False)):
        replay = Replay(step, [start, start], 2, model.device)
        replay.take(1)
        return kept[0][:, -1].clone()


def eager_logits(model: Adapter, start: Start) -> Tensor:
    tokens, positions = (torch.full((2, 1), value, device=model.device) for value in (start.token, start.position))
    with model.seams():
        return model.step(tokens, positions, ForkedCache([start.cache] * 2, 2))[:, -1]


@GPU
@pytest.mark.parametrize("kind", ["fp8", pytest.param("int4", marks=HUMMING)])
@pytest.mark.parametrize("name", shapes())
def test_a_captured_step_of_every_configuration_reads_packed_weights_as_an_eager_one(name: str, kind: str) -> None:
    model = cut(name, "cuda", "bfloat16")
    try:
        with model.seams():
            start = start_of(model, "one")
        packed: dict[nn.Module, Packed] = {}
        for layer in model.layers:
            for part in layer.modules():
                if isinstance(part, nn.Linear) and able(
                    SCHEMES[kind], *part.weight.shape, str(model.device), model.dtype
                ):
                    packed[part] = ROUND[kind](part.weight.data)
                    part.weight.data = packed[part].dense(model.dtype)
        assert packed
        expected, before = eager_logits(model, start), model.weight_bytes()
        assert install(model.layers, packed, model.dtype) == {KIND[kind].kernel}
        assert model.weight_bytes() < before
        found = eager_logits(model, start)
        assert off(found, expected) < (0.1 if kind == "fp8" else 0.03)
        # compiled layers round their norms elsewhere, which turns over codes of activations in FP8
        assert off(captured_logits(model, start), found) < (0.1 if kind == "fp8" else 0.03)
    finally:
        model.close()


def test_weights_of_several_layers_are_joined_as_they_stand_for() -> None:
    for kind in ROUND:
        parts = [ROUND[kind](drawn(seed, 16 * (seed + 1), 256)) for seed in range(3)]
        whole = together(parts)
        assert whole.shape == (96, 256)
        assert torch.equal(whole.dense(torch.float32), torch.cat([part.dense(torch.float32) for part in parts]))
        assert whole.nbytes == sum(part.nbytes for part in parts)


def test_four_bits_in_groups_of_128_take_four_and_an_eighth() -> None:
    weights = rounded_int4(drawn(0, 64, 1024))
    assert weights.nbytes == 64 * 1024 * (4 + 16 / 128) / 8
    assert rounded_int4(drawn(0, 64, 1024), asymmetric=True).nbytes == 64 * 1024 * (4 + 20 / 128) / 8


def test_no_kernel_reads_what_it_was_not_made_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(int4, "installed", lambda: True)
    half, float_ = torch.bfloat16, torch.float32
    for kind, scheme in SCHEMES.items():
        assert able(scheme, 128, 128, "cuda:0", half)
        assert not able(scheme, 128, 128, "cpu", half)
        wrong = [(scheme, 60, 120, half), (scheme, 128, 128, float_)]
        static = Scheme(scheme.kind, scheme.bits, 0 if kind == "int4" else 128, floating=scheme.floating)
        wrong.append((static, 128, 128, half))
        wrong += [(scheme, 192, 384, half)] if kind == "int4" else []  # the kernel fails in its first product
        for other, outputs, inputs, dtype in wrong:
            assert not able(other, outputs, inputs, "cuda:0", dtype)


class Wrong(Fp8Linear):
    """A kernel that forgets a scale."""

    def product(self, rows: Tensor) -> Tensor:
        return 0.5 * super().product(rows)


class Broken(Fp8Linear):
    """A kernel that does not compile."""

    def product(self, rows: Tensor) -> Tensor:
        raise OSError("nvcc: not found")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Wrong, r"torch\._scaled_mm is off by 0\.\d+ of a product of 64 x 128 weights; --vlm-kernels none runs"),
        (Broken, r"cannot be made here \(OSError: nvcc: not found\); --vlm-kernels none runs the dequantised weights"),
    ],
)
def test_a_kernel_that_is_wrong_or_cannot_be_made_is_told_where_the_model_is_loaded(
    kind: type[QuantizedLinear], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_kernels, "KINDS", {torch.float8_e4m3fn: kind})
    monkeypatch.setattr(_kernels, "_TRIED", set())
    holder = nn.Module()
    holder.o_proj = nn.Linear(128, 64, bias=False, device=DEVICE)
    with pytest.raises(ValueError, match=message):
        install([holder], {holder.o_proj: rounded_fp8(drawn(0, 64, 128))}, torch.bfloat16)
