"""The methods' kernels on a GPU: what plain PyTorch finds, and without waiting for the device.

Where there is no GPU they run in Triton's interpreter if that was asked for (TRITON_INTERPRET=1) and Triton is installed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from test_methods import asked, view

from effivlm.methods._base import CachePart
from effivlm.methods._choose import _plain, best_of_each, doubting
from effivlm.methods._merge import _nearest
from effivlm.methods.h2o import H2o
from effivlm.methods.look_m import LookM
from effivlm.methods.pyramidkv import PyramidKv
from effivlm.methods.random_kv import RandomKv
from effivlm.methods.snapkv import SnapKv
from effivlm.methods.streaming_llm import StreamingLlm
from effivlm.methods.tova import Tova
from effivlm.methods.vl_cache import VlCache
from effivlm.records import Budget

INTERPRETED = bool(os.environ.get("TRITON_INTERPRET")) and find_spec("triton") is not None
HAVE_GPU = torch.cuda.is_available()
KERNELS = pytest.mark.skipif(not (HAVE_GPU or INTERPRETED), reason="the kernels run on CUDA")
GPU = pytest.mark.skipif(not HAVE_GPU, reason="only a GPU can be waited for")
DEVICE = "cuda" if HAVE_GPU else "cpu"
HALF = torch.bfloat16


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


@KERNELS
@pytest.mark.parametrize("length", [1, 3, 17, 200, 1025])
@pytest.mark.parametrize("kind", ["plain", "ties", "infinite", "zeros"])
def test_the_kernel_chooses_what_plain_pytorch_chooses(length: int, kind: str) -> None:
    from effivlm.methods._choose_triton import highest

    scores = drawn(length, 3, 2, length)
    if kind == "ties":
        scores = scores.round()
    elif kind == "infinite":
        scores = scores.masked_fill(scores > 1, torch.inf).masked_fill(scores < -1, -torch.inf)
    elif kind == "zeros":
        scores = torch.where(scores > 0, 0.0, -0.0)
    counts = [0, length // 3, length]
    wanted = torch.tensor(counts, dtype=torch.int32, device=DEVICE)
    ours, plain = highest(scores, wanted, length), _plain(scores, wanted, counts, length)
    for mine, theirs, count in zip(ours, plain, counts, strict=True):
        assert torch.equal(mine[..., :count], theirs[..., :count])


@KERNELS
def test_a_score_without_an_order_writes_nothing_beside_its_row() -> None:
    from effivlm.methods._choose_triton import highest

    scores = drawn(0, 1, 3, 64)
    scores[0, 1, ::3] = torch.nan
    plain = drawn(0, 1, 3, 64)
    wanted = torch.tensor([5], dtype=torch.int32, device=DEVICE)
    ours, theirs = highest(scores, wanted, 5), highest(plain, wanted, 5)
    assert torch.equal(ours[0, [0, 2]], theirs[0, [0, 2]])


@KERNELS
@pytest.mark.parametrize("sorted_apart", [False, True])
@pytest.mark.parametrize(("evicted", "kept", "dim"), [(1, 1, 8), (150, 70, 24), (65, 129, 16), (300, 200, 128)])
def test_the_kernel_finds_the_nearest_key(evicted: int, kept: int, dim: int, sorted_apart: bool) -> None:
    from effivlm.methods._merge_triton import nearest

    gone, left = drawn(1, 2, evicted, dim), drawn(2, 2, kept, dim)
    inverse = 1 / left.norm(dim=-1)
    sorts = (drawn(3, 2, evicted) > 0, drawn(4, 2, kept) > 0.5) if sorted_apart else None
    similar = gone.double() @ left.double().transpose(1, 2) * inverse.double()[:, None]
    if sorts:
        similar = similar.masked_fill(sorts[0][..., None] != sorts[1][:, None], -torch.inf)
    place, product = nearest(gone, left, inverse, sorts)
    best = similar.max(-1).values
    torch.testing.assert_close(product.double(), best, rtol=2e-6, atol=1e-6)
    torch.testing.assert_close(similar.gather(-1, place[..., None])[..., 0][best > -torch.inf], best[best > -torch.inf])


@GPU
def test_of_equal_partners_the_first_is_taken() -> None:
    gone, left = drawn(7, 2, 300, 64), drawn(8, 2, 75, 64).repeat(1, 3, 1)
    place, _ = _nearest(gone, left, None)
    assert int(place.max()) < 75


@GPU
def test_half_precision_keys_find_the_partners_that_float64_finds() -> None:
    gone, left = drawn(5, 4, 900, 128).to(HALF), drawn(6, 4, 600, 128).to(HALF)
    place, cosine = _nearest(gone, left, None)
    exact = torch.nn.functional.normalize(gone.double(), dim=-1) @ torch.nn.functional.normalize(
        left.double(), dim=-1
    ).transpose(1, 2)
    best = exact.max(-1).values
    torch.testing.assert_close(cosine.double(), best, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(exact.gather(-1, place[..., None])[..., 0], best, rtol=1e-5, atol=1e-6)


def shown(method: CachePart, layers: int = 3, length: int = 300) -> list[Any]:
    """Layers of one prompt on the device, as a prefill shows them."""
    marks = view(0, length).visual.to(DEVICE)
    found = []
    for layer in range(layers):
        one = asked(view(layer, length), method)
        tensors = {name: getattr(one, name) for name in ("queries", "keys", "values", "received")}
        moved: Any = {name: None if tensor is None else tensor.to(DEVICE) for name, tensor in tensors.items()}
        found.append(replace(one, **moved, visual=marks, layer=layer, question=20, found={}))
    return found


@contextmanager
def not_waiting() -> Iterator[None]:
    """Inside, whatever waits for the device is an error."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@GPU
@pytest.mark.parametrize("kind", [StreamingLlm, SnapKv, PyramidKv, H2o, LookM, Tova, RandomKv, VlCache])
def test_a_prompt_is_compressed_without_waiting_for_the_device(kind: type[CachePart]) -> None:
    """While it is prefilled the device has work; who waits for it leaves it idle afterwards. VL-Cache alone asks, once."""
    method = kind(keep=Budget.parse("0.3"))
    method.compress(shown(method), "warm")
    views = shown(method)
    torch.cuda.synchronize()
    with doubting(), not_waiting():
        for one in views:
            method.look(one)
        cache = method.compress(views, "a")
    assert sum(layer.kept for layer in cache) == len(views) * method.keep.of(300)


@GPU
def test_scores_without_an_order_are_refused_at_the_end() -> None:
    scores = drawn(0, 1, 2, 50)
    scores[0, 0, 3] = torch.nan
    with pytest.raises(ValueError, match="scores hold NaN"), doubting():
        best_of_each(scores, [4])
