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

from effivlm.compression import merge
from effivlm.compression.base import CachePart, LayerView
from effivlm.compression.choose import NO_ORDER, _plain, best_of_each, doubting, refuse
from effivlm.kernels.placed import placed
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
    from effivlm.kernels.choose import highest

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
    from effivlm.kernels.choose import highest

    scores = drawn(0, 1, 3, 64)
    scores[0, 1, ::3] = torch.nan
    plain = drawn(0, 1, 3, 64)
    wanted = torch.tensor([5], dtype=torch.int32, device=DEVICE)
    ours, theirs = highest(scores, wanted, 5), highest(plain, wanted, 5)
    assert torch.equal(ours[0, [0, 2]], theirs[0, [0, 2]])


def on_device(seed: int, length: int, dim: int = 8, heads: int = 2) -> LayerView:
    one = view(seed, length, heads, heads)
    keys, values = drawn(seed, heads, length, dim), drawn(seed + 1, heads, length, dim + 4)
    return replace(one, queries=one.queries.to(DEVICE), visual=one.visual.to(DEVICE), keys=keys, values=values)


def some(heads: int, length: int, kept: int) -> torch.Tensor:
    return torch.stack([drawn(head, length).argsort()[:kept].sort().values for head in range(heads)])


@KERNELS
@pytest.mark.parametrize("scope", ["all", "same_modality"])
@pytest.mark.parametrize(("length", "kept", "dim"), [(2, 1, 8), (220, 70, 24), (194, 129, 16), (500, 200, 128)])
def test_the_kernel_finds_the_nearest_key(length: int, kept: int, dim: int, scope: str) -> None:
    from effivlm.kernels import merge as kernels

    one, chosen = on_device(length, length, dim), some(2, length, kept)
    keys = one.keys.double() / one.keys.double().norm(dim=-1, keepdim=True)
    gone = merge._complement(chosen, length)
    similar = merge.rows_of(keys, gone) @ merge.rows_of(keys, chosen).transpose(1, 2)
    if scope == "same_modality":
        similar = similar.masked_fill(one.visual[gone][..., None] != one.visual[chosen][:, None], -torch.inf)
    best = similar.max(-1).values
    place, cosine = torch.zeros_like(gone), torch.full_like(gone, -torch.inf, dtype=torch.float32)
    visual = one.visual if scope == "same_modality" else None
    kernels.nearest(one.keys, merge.inverse_norms(one), visual, gone, chosen, place, cosine)
    torch.testing.assert_close(cosine.double(), best, rtol=2e-6, atol=1e-6)
    taken = similar.gather(-1, place[..., None])[..., 0]
    torch.testing.assert_close(taken[best > -torch.inf], best[best > -torch.inf], rtol=2e-6, atol=1e-6)
    assert (place[best == -torch.inf] == 0).all()


@KERNELS
@pytest.mark.parametrize("rule", ["averaged", "pivotal", "weighted"])
@pytest.mark.parametrize("scope", ["all", "same_modality"])
@pytest.mark.parametrize(("length", "kept"), [(40, 7), (90, 60), (33, 32), (12, 12)])
def test_the_kernels_merge_as_plain_pytorch_does(
    rule: str, scope: str, length: int, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    for fused in (False, True):
        monkeypatch.setattr(merge, "_fused", lambda keys, fused=fused: fused)
        layers = [on_device(length + layer, length) for layer in range(3)]
        chosen = [some(2, length, kept).flip(0) if layer else some(2, length, kept) for layer in range(3)]
        there = merge.partners(layers, chosen, scope)
        made.append([merge.merged(*one, rule, known) for *one, known in zip(layers, chosen, there, strict=True)])
    for plain, ours in zip(*made, strict=True):
        torch.testing.assert_close(ours.keys, plain.keys, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(ours.values, plain.values, rtol=1e-5, atol=1e-6)


@GPU
def test_of_equal_partners_the_first_is_taken() -> None:
    one = on_device(7, 300, 64)
    one.keys[:, :225] = one.keys[:, :75].repeat(1, 3, 1)
    chosen = torch.arange(225, device=DEVICE).expand(2, -1).contiguous()
    assert int(merge.partners([one], [chosen], "all")[0].place.max()) < 75


@GPU
def test_half_precision_keys_find_the_partners_that_float64_finds() -> None:
    one = on_device(5, 1500, 128, heads=4)
    one = replace(one, keys=one.keys.to(HALF))
    chosen = some(4, 1500, 600)
    there = merge.partners([one], [chosen], "all")[0]
    keys = torch.nn.functional.normalize(one.keys.double(), dim=-1)
    exact = merge.rows_of(keys, there.gone) @ merge.rows_of(keys, chosen).transpose(1, 2)
    best = exact.max(-1).values
    torch.testing.assert_close(there.cosine.double(), best, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(exact.gather(-1, there.place[..., None])[..., 0], best, rtol=1e-5, atol=1e-6)


def shown(method: CachePart, layers: int = 3, length: int = 300) -> list[Any]:
    """Layers of one prompt on the device, as a prefill shows them."""
    marks = view(0, length).visual.to(DEVICE)
    found = []
    for layer in range(layers):
        one = asked(replace(view(layer, length), visual=view(0, length).visual), method)
        tensors = {name: getattr(one, name) for name in ("queries", "keys", "values", "received")}
        moved: Any = {name: None if tensor is None else tensor.to(DEVICE) for name, tensor in tensors.items()}
        found.append(replace(one, **moved, visual=marks, layer=layer, question=20))
    return found


@KERNELS
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("dim", "width"), [(8, 8), (80, 24)])
def test_the_kernel_takes_the_rows_of_all_layers_that_plain_pytorch_takes(
    kind: torch.dtype, dim: int, width: int
) -> None:
    """Layers of other lengths and budgets, none among them, and values that lie head by head within an entry."""
    from effivlm.compression.gather import Source, rows_of
    from effivlm.kernels.gather import gathered
    from effivlm.seams.columns import of_one_form

    lengths, counts = [40, 7, 300], [17, 0, 123]
    keys = [drawn(number, 3, length, dim).to(kind) for number, length in enumerate(lengths)]
    values = [drawn(number + 9, length, 3, width).to(kind).transpose(0, 1) for number, length in enumerate(lengths)]
    chosen = [
        drawn(number + 20, 3, length).argsort(-1)[:, :count].sort(-1).values
        for number, (length, count) in enumerate(zip(lengths, counts, strict=True))
    ]
    assert of_one_form(keys) == of_one_form(values) == HAVE_GPU
    assert not of_one_form([keys[0], keys[1].double()])
    facts = [(key.data_ptr(), value.data_ptr(), key.stride(0), value.stride(0)) for key, value in zip(keys, values)]  # noqa: B905
    found = gathered(keys[0], values[0], facts, chosen)
    assert Source(keys, values).facts == (facts if HAVE_GPU else None)
    for (key, value), before, given, at in zip(found, keys, values, chosen, strict=True):
        assert torch.equal(key, rows_of(before, at))
        assert torch.equal(value, rows_of(given, at))


@KERNELS
@pytest.mark.parametrize("kind", [torch.float32, torch.float16])
@pytest.mark.parametrize("rows", [1, 17, 40])
@pytest.mark.parametrize("turned", [False, True])
def test_the_kernels_look_at_all_layers_as_at_each_alone(turned: bool, rows: int, kind: torch.dtype) -> None:
    """Where an entry's heads lie side by side, as projections leave them, and where a head's entries do."""
    from effivlm.seams import columns

    def layer(seed: int, heads: int, length: int) -> torch.Tensor:
        made = drawn(seed, *((length, heads, 24) if turned else (heads, length, 24))).to(kind)
        return made.transpose(0, 1) if turned else made

    keys = [layer(number, 2, 131) for number in range(3)]
    queries = [layer(9 + number, 6, 131)[:, -rows:] for number in range(3)]
    begin = columns._begin(keys)
    assert begin is not None
    assert (columns.LayeredKeys(keys).begin is None) != HAVE_GPU
    sums, near = columns._sums_and_near(torch.stack(queries), keys[0], begin, columns._below(0.1))
    for number, (query, key) in enumerate(zip(queries, keys, strict=True)):
        torch.testing.assert_close(sums[number], columns.column_sums(query, key), rtol=1e-5, atol=1e-6)
        expected = columns.received_and_near(query.cpu(), key.cpu(), 0.1)[1]
        share = near[number].sum(-1) / columns._visible(rows, 131)
        torch.testing.assert_close(share.cpu(), expected, rtol=0, atol=2 / columns._visible(rows, 131))
    together = columns.received_of_layers(queries, columns.LayeredKeys(keys))
    torch.testing.assert_close(sums, together, rtol=1e-5, atol=1e-6)


@KERNELS
def test_layers_that_do_not_lie_alike_have_no_kernel_in_common() -> None:
    from effivlm.seams import columns

    even = [drawn(number, 2, 40, 8) for number in range(3)]
    assert columns._begin([*even, drawn(3, 2, 41, 8)]) is None
    assert columns._begin([even[0], even[1].transpose(0, 1).contiguous().transpose(0, 1)]) is None
    assert columns._begin([even[0], drawn(4, 2 * 40 * 8 + 1)[1:].view(2, 40, 8)]) is None


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
    """While it is prefilled the device has work; who waits for it leaves it idle afterwards."""
    method = kind(keep=Budget.parse("0.3"))
    method.compress(shown(method), "warm")
    views = shown(method)
    if kind is VlCache:
        method.budgets(views)  # it alone asks, once, how dense attention is
    torch.cuda.synchronize()
    with doubting(), not_waiting():
        for one in views:
            method.look(one)
        cache = method.compress(views, "a")
    assert sum(layer.kept for layer in cache) == len(views) * method.keep.of(300)


@GPU
def test_scores_without_an_order_are_noted_without_waiting() -> None:
    scores = drawn(0, 1, 2, 50)
    scores[0, 0, 3] = torch.nan
    with doubting() as doubts, not_waiting():
        best_of_each(scores, [4])
    assert [str(error) for error in refuse(doubts, [])] == [NO_ORDER, "None"]


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="wants a device that is not the current one")
def test_kernels_run_on_the_device_of_their_tensors() -> None:
    scores = drawn(0, 2, 3, 50)
    with torch.cuda.device(0):
        found = best_of_each(scores.to("cuda:1"), [7, 9])
        assert torch.cuda.current_device() == 0
    for ours, expected in zip(found, best_of_each(scores.cpu(), [7, 9]), strict=True):
        assert ours.device == torch.device("cuda:1")
        assert torch.equal(ours.cpu(), expected)


def test_a_launch_is_placed_by_its_first_tensor_and_otherwise_as_it_was() -> None:
    @placed
    def launch(first: Any, factor: int = 1) -> Any:
        """Words."""
        return (first if isinstance(first, torch.Tensor) else first[0]) * factor

    assert launch(torch.ones(2), factor=3).tolist() == [3, 3]
    assert launch((torch.ones(1), None), 2).tolist() == [2]
    assert launch.__doc__ == "Words."
