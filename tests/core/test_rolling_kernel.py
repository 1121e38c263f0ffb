"""The kernels of rolling rows: the same outputs, victims and sums as plain PyTorch, step by step.

On a CPU they run in Triton's interpreter: TRITON_INTERPRET=1, with Triton installed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from copy import deepcopy
from importlib.util import find_spec

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from effivlm.decoding import rolling
from effivlm.decoding.caches import KeptLayer
from effivlm.decoding.packed import PackedLayer
from effivlm.decoding.rolling import RolledLayer, Rolling, RollingSegment

INTERPRETED = pytest.mark.skipif(
    find_spec("triton") is None or os.environ.get("TRITON_INTERPRET") != "1", reason="needs Triton's interpreter"
)
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernels and the graphs run on CUDA")
SORTS = {"oldest": (False, False), "least": (True, False), "together": (True, True), "oldest together": (False, True)}
SHAPES = [  # KV heads, query heads of each, width of a key, width of a value
    (2, 1, 16, 16),
    (1, 7, 24, 24),
    (3, 2, 5, 5),
    (2, 3, 80, 20),
    (1, 18, 12, 33),
]
LENGTHS = [  # of every row; the slots in use end inside a block of 64, on its edge, and just behind it
    [5],
    [64, 63, 3],
    [65, 129, 1],
]


def drawn(rng: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=rng)


def row(rng: torch.Generator, length: int, shape: tuple[int, int, int, int], rule: Rolling) -> RolledLayer:
    heads, _, dim, width = shape
    if rule.scores is not None:
        rule = Rolling(rule.sinks, rule.recent, drawn(rng, heads, length).abs(), rule.shared)
    return drawn(rng, heads, length, dim), drawn(rng, heads, length, width), rule


def rule_of(sort: tuple[bool, bool], sinks: int, recent: int) -> Rolling:
    scored, shared = sort
    return Rolling(sinks, recent, torch.zeros(1) if scored else None, shared)


def to(layers: list[RolledLayer], device: str, dtype: torch.dtype) -> list[RolledLayer]:
    moved = []
    for keys, values, rule in layers:
        scores = None if rule.scores is None else rule.scores.to(device)
        one = Rolling(rule.sinks, rule.recent, scores, rule.shared)
        moved.append((keys.to(device, dtype), values.to(device, dtype), one))
    return moved


def entries(rng: torch.Generator, rows: int, shape: tuple[int, int, int, int]) -> list[Tensor]:
    """One query, key and value for every row."""
    heads, group, dim, width = shape
    return [drawn(rng, rows, count, 1, one) for count, one in ((heads * group, dim), (heads, dim), (heads, width))]


def choose(way: bool) -> None:
    """Which way `attend` takes from here on."""
    rolling.fused = lambda query: way and query.shape[2] == 1


@pytest.fixture(autouse=True)
def either_way() -> Iterator[None]:
    stock = rolling.fused
    yield
    rolling.fused = stock


def differing(ours: RollingSegment, expected: RollingSegment) -> list[str]:
    """What of two states is not the same, in float32."""
    names = ("order", "free", "facts", "keys", "values")
    found = [name for name in names if not torch.equal(getattr(ours, name), getattr(expected, name))]
    return found + ["scores"] * (not torch.allclose(ours.scores, expected.scores, rtol=1e-6, atol=1e-6))


def compared(
    rng: torch.Generator,
    segment: RollingSegment,
    shape: tuple[int, int, int, int],
    steps: int,
    splits: int,
    scaling: float | None = None,
) -> list[str]:
    """Let a segment and a copy of it take steps, in kernels and in plain PyTorch; what differs after any of them."""
    expected, found = deepcopy(segment), list[str]()
    segment._splits = splits
    for _ in range(steps):
        new = [one.to(segment.keys.device) for one in entries(rng, len(segment.rows), shape)]
        choose(True)
        ours = segment.attend(*new, scaling)
        choose(False)
        same = torch.allclose(ours, expected.attend(*new, scaling), rtol=2e-6, atol=2e-6)
        found += ["attention"] * (not same) + differing(segment, expected)
    return found


@INTERPRETED
@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("lengths", "splits"), list(zip(LENGTHS, (1, 2, 3), strict=True)), ids=str)
def test_the_kernels_do_step_by_step_what_plain_pytorch_does(sort, shape, lengths, splits) -> None:
    rng = torch.Generator().manual_seed(sum(shape) + splits)
    layers = [
        row(rng, length, shape, rule_of(SORTS[sort], min(at, length - 1), min(1 - at % 2, length)))
        for at, length in enumerate(lengths)
    ]
    assert (
        compared(rng, RollingSegment(torch.arange(len(lengths)), layers), shape, 8 if splits == 1 else 3, splits) == []
    )


@INTERPRETED
@settings(deadline=None, max_examples=20)
@given(
    seed=st.integers(0, 10**6),
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 20), st.integers(1, 20)),
    sort=st.sampled_from(sorted(SORTS)),
    slack=st.sampled_from([1.0, 1.25, 3.0]),
    splits=st.integers(1, 4),
    steps=st.integers(1, 9),
    data=st.data(),
)
def test_any_rows_roll_alike_both_ways(seed, lengths, shape, sort, slack, splits, steps, data) -> None:
    from effivlm.kernels import rolling as kernels

    rng, layers = torch.Generator().manual_seed(seed), []
    for length in lengths:  # up to where nothing may go, and beyond
        sinks, recent = data.draw(st.integers(0, length - 1)), data.draw(st.integers(0, length + 2))
        layers.append(row(rng, length, shape, rule_of(SORTS[sort], sinks, recent)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "BLOCK", 16)
        patch.setattr(kernels, "TILE", 16)
        segment = RollingSegment(torch.arange(len(lengths)), layers, slack)
        assert compared(rng, segment, shape, steps, splits, data.draw(st.sampled_from([None, 0.3]))) == []
        rest = torch.arange(1, len(lengths))
        if len(rest):
            assert compared(rng, segment.only(rest, rest - 1), shape, 2, splits) == []
        if segment.padded:  # else a row that follows is as long as the one before
            lengths = [max(rule.sinks + 1, length - 2) for length, (_, _, rule) in zip(lengths, layers, strict=True)]
        segment.load([row(rng, length, shape, rule) for length, (_, _, rule) in zip(lengths, layers, strict=True)])
        assert compared(rng, segment, shape, 2, splits) == []


@INTERPRETED
@pytest.mark.parametrize("sort", [(False, False), (True, False), (True, True)])
def test_where_nothing_may_go_the_newest_goes(sort) -> None:
    rng, shape = torch.Generator().manual_seed(3), (2, 2, 8, 8)
    segment = RollingSegment(torch.arange(2), [row(rng, length, shape, rule_of(sort, 2, 9)) for length in (6, 9)])
    assert compared(rng, segment, shape, 1, 2) == []
    assert torch.equal(segment.order.gather(2, segment.free[..., None]), (segment.facts[0] - 1).expand(-1, 2, -1))
    assert compared(rng, segment, shape, 5, 2) == []


@INTERPRETED
def test_of_entries_that_got_the_same_the_later_one_goes_in_kernels_too() -> None:
    shape = (1, 1, 4, 4)
    layers = [(torch.zeros(1, 3, 4), torch.zeros(1, 3, 4), Rolling(scores=torch.ones(1, 3)))]
    segment, nothing = RollingSegment(torch.arange(1), layers), torch.zeros(1, 1, 1, 4)
    choose(True)
    for _ in range(3):
        segment.attend(nothing, nothing, nothing, None)
        assert segment.free.tolist() == [[3]]
    segment.scores[:] = 0.0
    segment.order[:] = torch.tensor([7, 2, 9, 4])
    segment.facts[0] = 10
    segment.free[:] = 1  # what is there gets the same as what comes, which is the latest
    segment.attend(nothing, nothing, nothing, None)
    assert segment.order.tolist() == [[[7, 10, 9, 4]]]
    assert segment.free.tolist() == [[1]]
    assert compared(torch.Generator().manual_seed(0), segment, shape, 3, 1) == []


@INTERPRETED
@pytest.mark.parametrize("shared", [False, True])
def test_of_equal_entries_in_several_tiles_the_latest_that_may_go_goes(shared, monkeypatch) -> None:
    from effivlm.kernels import rolling as kernels

    monkeypatch.setattr(kernels, "TILE", 16)
    entry = torch.zeros(2, 40, 4)
    rule = Rolling(1, 3, torch.zeros(2, 40), shared)
    segment, nothing = RollingSegment(torch.arange(1), [(entry, entry, rule)]), torch.zeros(1, 2, 1, 4)
    segment.order[0, :, :40] = torch.randperm(40, generator=torch.Generator().manual_seed(2))
    expected = deepcopy(segment)
    for _ in range(4):
        for one, way in ((segment, True), (expected, False)):
            choose(way)
            one.scores.zero_()
            one.attend(nothing, nothing, nothing, None)
        assert differing(segment, expected) == []
        assert segment.order.gather(2, segment.free[..., None]).flatten().tolist() == [int(segment.facts[0]) - 4] * 2


@INTERPRETED
def test_half_precision_in_the_interpreter() -> None:
    dtype = torch.float16  # the interpreter multiplies the bits of bfloat16 as if they were whole numbers
    rng, shape = torch.Generator().manual_seed(9), (2, 3, 20, 12)
    layers = to([row(rng, length, shape, Rolling(2)) for length in (30, 70)], "cpu", dtype)
    segment = RollingSegment(torch.arange(2), layers)
    expected = deepcopy(segment)
    segment._splits = 2
    for _ in range(3):
        new = [one.to(dtype) for one in entries(rng, 2, shape)]
        choose(True)
        ours = segment.attend(*new, None)
        choose(False)
        torch.testing.assert_close(ours, expected.attend(*new, None), rtol=2e-2, atol=2e-2)
        assert differing(segment, expected) == []


@INTERPRETED
@pytest.mark.parametrize("rules", [[Rolling(1)] * 3, [Rolling(1), None, Rolling(2)]], ids=["alone", "beside others"])
def test_a_packed_layer_gives_its_rolling_rows_to_the_kernels(rules) -> None:
    rng, shape = torch.Generator().manual_seed(11), (2, 2, 8, 8)
    layers = [KeptLayer(*row(rng, 9 + at, shape, Rolling())[:2], rolling=rule) for at, rule in enumerate(rules)]
    both = [PackedLayer(layers, 4, torch.zeros(1, dtype=torch.int32), 1.25) for _ in range(2)]
    for _ in range(4):
        query, key, value = entries(rng, 3, shape)
        answers = []
        for one, way in zip(both, (True, False), strict=True):
            choose(way)
            one.offer(key, value)
            answers.append(one.attend(query, None))
            one.filled += 1
        torch.testing.assert_close(*answers, rtol=2e-6, atol=2e-6)


WIDE = [(4, 7, 128, 128), (1, 1, 8, 24), (3, 2, 80, 80), (8, 5, 128, 64)]


@GPU
@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("shape", WIDE, ids=str)
@pytest.mark.parametrize("splits", [1, 3, 16])
def test_the_kernels_do_on_a_gpu_what_plain_pytorch_does(sort, shape, splits) -> None:
    rng = torch.Generator().manual_seed(shape[2])
    layers = [row(rng, length, shape, rule_of(SORTS[sort], 3, 40)) for length in (700, 131, 64)]
    segment = RollingSegment(torch.arange(3).cuda(), to(layers, "cuda", torch.float32), 1.25)
    expected = deepcopy(segment)
    segment._splits = splits
    for _ in range(8):
        new = [one.cuda() for one in entries(rng, 3, shape)]
        choose(True)
        ours = segment.attend(*new, None)
        choose(False)
        torch.testing.assert_close(ours, expected.attend(*new, None), rtol=1e-5, atol=1e-5)
        for name in ("order", "free", "facts", "keys", "values"):
            assert torch.equal(getattr(segment, name), getattr(expected, name)), name
        torch.testing.assert_close(segment.scores, expected.scores, rtol=1e-5, atol=1e-5)


@GPU
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("shape", WIDE, ids=str)
def test_half_precision_on_a_gpu(dtype, sort, shape) -> None:
    """Victims may differ where sums nearly tie, so that every step starts from one state."""
    rng = torch.Generator().manual_seed(shape[2])
    layers = [row(rng, length, shape, rule_of(SORTS[sort], 3, 40)) for length in (700, 131, 64)]
    segment = RollingSegment(torch.arange(3).cuda(), to(layers, "cuda", dtype))
    for _ in range(4):
        expected = deepcopy(segment)
        new = [one.to("cuda", dtype) for one in entries(rng, 3, shape)]
        choose(True)
        ours = segment.attend(*new, None)
        choose(False)
        torch.testing.assert_close(ours, expected.attend(*new, None), rtol=2e-2, atol=2e-2)
        torch.testing.assert_close(segment.scores, expected.scores, rtol=2e-2, atol=2e-2)
        for name in ("order", "facts", "keys", "values"):
            assert torch.equal(getattr(segment, name), getattr(expected, name)), name


@GPU
@pytest.mark.parametrize("sort", SORTS)
def test_a_captured_step_rolls_on_when_replayed_and_again_from_another_prompt(sort) -> None:
    rng, shape, stock = torch.Generator().manual_seed(5), (4, 7, 64, 64), rolling.fused
    first, second = (
        to([row(rng, length, shape, rule_of(SORTS[sort], 4, 20)) for length in lengths], "cuda", torch.float32)
        for lengths in ((300, 200), (150, 333))
    )
    segment, expected = (RollingSegment(torch.arange(2).cuda(), first, 1.25) for _ in range(2))
    held = [one.cuda() for one in entries(rng, 2, shape)]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        segment.attend(*held, None)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        ours = segment.attend(*held, None)
    for layers in (first, second):
        for one in (segment, expected):
            one.load(layers)
        for _ in range(5):
            for place, new in zip(held, entries(rng, 2, shape), strict=True):
                place.copy_(new)
            graph.replay()
            choose(False)
            torch.testing.assert_close(ours, expected.attend(*held, None), rtol=1e-5, atol=1e-5)
            rolling.fused = stock
            assert torch.equal(segment.order, expected.order)
            assert torch.equal(segment.free, expected.free)
            torch.testing.assert_close(segment.scores, expected.scores, rtol=1e-5, atol=1e-5)
