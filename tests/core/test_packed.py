"""Caches whose lengths live on the device: the same attention as caches that Python knows, and the same answers."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import pytest
import torch
from forms import sample
from hypothesis import given, settings
from hypothesis import strategies as st
from test_rolling import drawn, layer

from effivlm.decoding.caches import ForkedLayer, KeptLayer
from effivlm.decoding.eager import Start, greedy
from effivlm.decoding.engine import CHUNK, Captured, Eager, Paced
from effivlm.decoding.packed import PackedCache, PackedLayer, attend_reference, sort_of, together
from effivlm.decoding.replay import Replay
from effivlm.decoding.rolling import Rolling
from effivlm.methods.adakv import AdaKv
from effivlm.methods.dense import Dense
from effivlm.methods.h2o import H2o
from effivlm.methods.pyramidkv import PyramidKv
from effivlm.methods.streaming_llm import StreamingLlm
from effivlm.models._adapter import Adapter
from effivlm.models._sources import resolve
from effivlm.records import Budget, Settings
from effivlm.run.group import open_model
from effivlm.run.tree import Tree

DIM = 4
RULES = (None, Rolling(sinks=2), Rolling(recent=2, scores=torch.zeros(1)), Rolling(1, 2, torch.zeros(1), shared=True))


def kept(seed: int, length: int, heads: int, rule: int, ragged: bool) -> KeptLayer:
    """A layer that grows, with heads of different lengths where asked, or one that rolls."""
    made = layer(seed, length, heads, RULES[rule])
    if not ragged or made.rolling is not None:
        return made
    return replace(made, lengths=tuple(1 + (seed + head) % length for head in range(heads)))


rows = st.lists(st.tuples(st.integers(5, 12), st.integers(0, 3), st.booleans()), min_size=1, max_size=5)


@settings(deadline=None, max_examples=60)
@given(rows, rows, st.integers(1, 2), st.integers(1, 3), st.integers(0, 99))
def test_packed_rows_attend_as_forked_ones_do_also_when_other_prompts_follow(first, second, heads, group, seed) -> None:
    steps = 4
    # the rows that follow roll as those before them, but have other lengths
    second = [(second[at % len(second)][0], rule, ragged) for at, (_, rule, ragged) in enumerate(first)]
    filled, packed = torch.zeros(1, dtype=torch.int32), None
    for turn, batch in enumerate((first, second)):
        layers = [
            kept(seed + 10 * at + turn, length, heads, rule, ragged) for at, (length, rule, ragged) in enumerate(batch)
        ]
        if packed is None:
            packed = PackedLayer(layers, steps, filled, slack=3.0)
        assert packed.fits(layers)
        packed.load(layers)
        filled.zero_()
        forked = ForkedLayer(layers, steps)
        for step in range(steps):
            query, key, value = (
                drawn(seed + 100 * turn + 10 * step + part, len(batch), count, 1, DIM)
                for part, count in enumerate((heads * group, heads, heads))
            )
            answers = []
            for one in (packed, forked):
                one.offer(key, value)
                answers.append(one.attend(query, None))
            filled += 1
            torch.testing.assert_close(*answers)


@pytest.mark.parametrize("rule", RULES)
def test_copies_of_one_prompt_stand_in_every_row(rule: Rolling | None) -> None:
    one, other = layer(0, 6, 2, rule), layer(1, 8, 2, rule)
    for batch in ([one] * 3, [one, one, other, other, one]):
        filled = torch.zeros(1, dtype=torch.int32)
        packed, forked = PackedLayer(batch, 2, filled, 1.5), ForkedLayer(batch, 2)
        for step in range(2):
            new = [drawn(step + part, len(batch), 2, 1, DIM) for part in range(3)]
            answers = []
            for cache in (packed, forked):
                cache.offer(*new[1:])
                answers.append(cache.attend(new[0], None))
            filled += 1
            torch.testing.assert_close(*answers)


def test_rows_longer_than_the_pool_do_not_fit() -> None:
    packed = PackedLayer([layer(0, 6, 2, None), layer(1, 6, 2, RULES[1])], 3, torch.zeros(1, dtype=torch.int32), 1.0)
    assert packed.fits([layer(2, 5, 2, None), layer(3, 6, 2, RULES[1])])
    assert not packed.fits([layer(2, 7, 2, None), layer(3, 6, 2, RULES[1])])
    assert not packed.fits([layer(2, 6, 2, None), layer(3, 7, 2, RULES[1])])


def test_batches_of_one_sort_roll_alike_row_by_row_and_layer_by_layer() -> None:
    grows, rolls = layer(0, 6, 2, None), layer(1, 6, 2, RULES[1])
    assert sort_of([[grows, rolls]]) == sort_of([[layer(2, 9, 2, None), layer(3, 4, 2, Rolling(sinks=1, recent=1))]])
    others = ([[rolls, grows]], [[grows, grows]], [[grows, layer(1, 6, 2, RULES[2])]], [[grows, rolls]] * 2)
    assert all(sort_of([[grows, rolls]]) != sort_of(other) for other in others)


FAMILIES = ("micro_llava_onevision", "micro_qwen2_vl", "micro_internvl2_5")
METHODS = (Dense, StreamingLlm, PyramidKv, H2o, AdaKv)  # rows that roll between others


def starts_of(model: Adapter, form: str) -> list[Start]:
    methods = [kind(keep=Budget.parse("1" if kind is Dense else "0.3")) for kind in METHODS]
    with model.seams():
        tree = Tree(model, sample(form), methods)
        return [tree.leaf(method).start for method in methods]


def test_prompts_of_one_group_share_a_captured_step_and_say_what_the_eager_loop_lets_them_say(model: Adapter) -> None:
    engine, longest = Captured(model.step, model.device), 2 * CHUNK + 3
    batches = [starts_of(model, form) for form in ("one", "two", "text")]
    for starts in sorted(
        batches, key=lambda batch: -batch[0].cache[0].keys.shape[1]
    ):  # what follows fits the longest's place
        with model.seams():
            free = greedy(model.step, starts, longest, (), model.device)
            ended = [row[CHUNK] for row in free[:2]]
            for eos in ((), ended):
                expected = greedy(model.step, starts, longest, eos, model.device)
                assert engine.greedy(starts, longest, eos) == expected
            for leader in (0, 3):
                said, made = engine.followed(starts, longest, ended, leader)
                assert said == expected
                fed = said[leader][: longest - 1]
                others = Eager(model.step, model.device).chosen(starts, range(len(starts)), fed)
                assert made is not None
                assert [row[0] for row in made] == [start.token for start in starts]
                assert [row[1 : len(fed) + 1] for row in made] == others
            rows, fed = [0, len(starts) - 1], free[1][: longest - 1]
            assert engine.chosen(starts, rows, fed) == Eager(model.step, model.device).chosen(starts, rows, fed)
    assert engine.captures == 3, "rows alone, and beside those that follow one of two leaders"


def test_rows_are_put_in_an_order_in_which_those_that_roll_alike_stand_together() -> None:
    grows, old, heavy = [layer(0, 6, 2, None)], [layer(1, 6, 2, RULES[1])], [layer(1, 6, 2, RULES[2])]
    batch = [old, heavy, grows, old, grows, heavy]
    order = together(batch)
    assert order[:2] == [2, 4], "what grows comes first"
    assert order[2:] in ([0, 3, 1, 5], [1, 5, 0, 3])
    assert together([grows, [*grows], grows]) == [0, 2, 1], "the same cache stands beside itself"
    assert PackedLayer([batch[row][0] for row in order], 2, torch.zeros(1, dtype=torch.int32), 1.0).ordered
    assert not PackedLayer([cache[0] for cache in batch], 2, torch.zeros(1, dtype=torch.int32), 1.0).ordered


def test_the_same_prompts_are_not_copied_again_and_nobody_keeps_them(
    model: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = starts_of(model, "text")
    with model.seams(), monkeypatch.context() as patch:
        patch.setattr(PackedCache, "load", lambda *_: pytest.fail("these prompts are there"))
        replay = Replay(model.step, starts, 3, model.device)
        replay.take(3)
        said = replay.said.clone()
        replay.load(starts)
        replay.take(3)
        assert torch.equal(replay.said, said)
        with pytest.raises(pytest.fail.Exception, match="are there"):
            replay.load([replace(start) for start in starts])
    gone = [weakref.ref(start) for start in starts]
    starts.clear()
    assert all(start() is None for start in gone)


def test_rows_that_follow_are_left_out_where_they_do_not_fit(model: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    starts, stock, rooms = starts_of(model, "text"), Captured._ready, []

    def small(self: Captured, batch: list[Start], room: int, lead: list[int] | None = None) -> Replay:
        rooms.append(len(batch))
        if len(batch) > len(starts):
            raise torch.cuda.OutOfMemoryError("wanted 9 GiB")
        return stock(self, batch, room, lead)

    monkeypatch.setattr(Captured, "_ready", small)
    engine = Captured(model.step, model.device)
    with model.seams():
        expected = greedy(model.step, starts, 5, (), model.device)
        assert engine.followed(starts, 5, (), 0) == (expected, None)
        assert rooms == [2 * len(starts), len(starts)]
        with pytest.raises(torch.cuda.OutOfMemoryError, match="9 GiB"):
            engine.greedy(starts * 2, 5, ())


def test_an_answer_that_has_ended_or_may_say_one_token_needs_no_step(model: Adapter) -> None:
    start = starts_of(model, "text")[0]
    engine = Captured(lambda *_: pytest.fail("nothing is to be decoded"), model.device)
    assert engine.greedy([start], 1, ()) == [[start.token]]
    assert engine.greedy([start], 9, (start.token,)) == [[]]
    assert engine.followed([start, start], 9, (start.token,), 1) == ([[]] * 2, [[start.token]] * 2)


def test_rows_that_a_batch_may_confuse_are_decided_alone() -> None:
    """Only a row by itself chooses 3 after 1; together the step says 2, and hardly so."""

    def step(tokens: torch.Tensor, positions: torch.Tensor, cache: object) -> torch.Tensor:
        logits = torch.zeros(*tokens.shape, 6)
        logits[..., 3 if tokens.numel() == 1 else 2] = 1e-6
        return logits

    one = Start([layer(0, 5, 1, None)], 1, 0)
    engine = Captured(step, torch.device("cpu"))
    assert engine.greedy([one], 3, ()) == [[1, 3, 3]]
    assert engine.greedy([one, one], 3, ()) == [[1, 3, 3]] * 2
    assert engine.followed([one, one], 3, (), 0) == ([[1, 3, 3]] * 2, [[1, 3, 3]] * 2)


def test_a_replay_is_freed_with_its_last_user(model: Adapter) -> None:
    """Not when somebody looks for cycles: it holds a batch of caches."""
    starts = starts_of(model, "text")
    gc.disable()
    try:
        replay = Replay(model.step, starts, 2, model.device)
        gone = weakref.ref(replay)
        del replay
        assert gone() is None
    finally:
        gc.enable()


GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernels and the graphs run on CUDA")


@GPU
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("heads", "group", "dim", "width"), [(4, 7, 128, 128), (1, 1, 8, 24), (3, 2, 80, 80)])
@pytest.mark.parametrize("splits", [1, 3, 16])
def test_the_kernel_attends_as_plain_pytorch_does(dtype, heads, group, dim, width, splits) -> None:
    from effivlm.kernels.packed import attend

    rows, space, rng = 3, 700, torch.Generator().manual_seed(dim)

    def made(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=rng).to("cuda", dtype)

    length = torch.randint(1, 690, (rows, heads), generator=rng, dtype=torch.int32).cuda()
    offset = (torch.arange(rows * heads) * space).view(rows, heads).cuda()
    pool = made(rows * heads * space, dim), made(rows * heads * space, width)
    filled = torch.tensor([2], dtype=torch.int32).cuda()
    new = made(rows, heads * group, 1, dim), made(rows, heads, 1, dim), made(rows, heads, 1, width)
    again = pool[0].clone(), pool[1].clone()
    ours = attend(*new, pool, offset, length, filled, dim**-0.5, splits)
    expected = attend_reference(*new, again, offset, length, filled, dim**-0.5)
    close = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 5e-3}
    torch.testing.assert_close(ours, expected, **close)
    assert all(torch.equal(*pair) for pair in zip(pool, again, strict=True))


@GPU
@pytest.mark.parametrize("family", FAMILIES)
def test_captured_steps_say_on_a_gpu_what_the_eager_loop_says(family: str) -> None:
    model = open_model(resolve(family), Settings(device="cuda"))
    engine = Captured(model.step, model.device)
    for form in ("one", "text", "two"):
        starts = starts_of(model, form)
        with model.seams():
            for eos in ((), model.eos):
                said = engine.greedy(starts, 12, eos)
                assert said == greedy(model.step, starts, 12, eos, model.device)
            rows = list(range(len(starts)))
            assert engine.chosen(starts, rows, said[0]) == Eager(model.step, model.device).chosen(starts, rows, said[0])
            paced = Paced(model.step, starts[0], 11, model.device, batch=3)
            assert paced.engine == "cuda_graph"
            for _ in range(2):
                paced.rewind()
                assert paced().T.tolist() == [greedy(model.step, starts[:1], 12, (), model.device)[0][1:]] * 3
    model.close()
