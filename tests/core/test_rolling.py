"""Caches that keep their size while decoding: against lists of entries, against masks, and beside caches that grow."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from forms import sample
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import everything, logits
from test_methods import asked, attention64, view
from test_oracle import CLOSE, TOKENS

from effivlm.compression.base import Method
from effivlm.decoding.caches import ForkedCache, ForkedLayer, KeptLayer
from effivlm.decoding.eager import Start, forced, greedy
from effivlm.decoding.engine import Paced
from effivlm.decoding.rolling import Rolling, RollingSegment
from effivlm.methods.dense import Dense
from effivlm.methods.h2o import H2o
from effivlm.methods.snapkv import SnapKv
from effivlm.methods.streaming_llm import StreamingLlm
from effivlm.models._adapter import Adapter
from effivlm.records import Budget
from effivlm.run.tree import Tree

DIM = 4


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 2


def layer(seed: int, length: int, heads: int, rule: Rolling | None) -> KeptLayer:
    if rule is not None and rule.scores is not None:
        rule = replace(rule, scores=drawn(seed + 2, heads, length).abs())
    return KeptLayer(drawn(seed, heads, length, DIM), drawn(seed + 1, heads, length, DIM), rolling=rule)


def by_hand(start: KeptLayer, new: tuple[torch.Tensor, ...]) -> tuple[list[torch.Tensor], list[list[list[int]]]]:
    """Outputs [H_q, D] of every step and the entries left after it, from lists of entries in float64."""
    rule = start.rolling
    assert rule is not None
    query, key, value = (one.double() for one in new)
    heads, length = start.keys.shape[:2]
    keys = [[*start.keys[head].double(), *key[head]] for head in range(heads)]
    values = [[*start.values[head].double(), *value[head]] for head in range(heads)]
    there = [list(range(length)) for _ in range(heads)]
    got = [
        dict(enumerate(rule.scores[head].tolist() if rule.scores is not None else [0.0] * length))
        for head in range(heads)
    ]
    outputs, left = [], []
    group = len(query) // heads
    for step in range(query.shape[1]):
        newest, rows = length + step, []
        for head in range(heads):
            if rule.scores is None:
                there[head].remove(next(entry for entry in there[head] if entry >= rule.sinks))
            there[head].append(newest)
            got[head][newest] = 0.0
            for one in range(head * group, (head + 1) * group):
                weights = torch.stack(
                    [keys[head][entry] @ query[one, step] / DIM**0.5 for entry in there[head]]
                ).softmax(0)
                rows.append(
                    sum(weight * values[head][entry] for weight, entry in zip(weights, there[head], strict=True))
                )
                for weight, entry in zip(weights.tolist(), there[head], strict=True):
                    got[head][entry] += weight / group
        if rule.scores is not None:
            worth = [
                {
                    entry: (sum(got[h][entry] for h in range(heads)) if rule.shared else got[head][entry])
                    for entry in there[head]
                }
                for head in range(heads)
            ]
            for head in range(heads):
                may = [e for e in there[head] if rule.sinks <= e <= newest - rule.recent]
                there[head].remove(min(may, key=lambda entry, head=head: (worth[head][entry], -entry)))
        outputs.append(torch.stack(rows))  # type: ignore[arg-type]
        left.append([sorted(entries) for entries in there])
    return outputs, left


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 10**6),
    length=st.integers(1, 12),
    heads=st.sampled_from([(4, 2), (3, 3), (5, 1)]),
    steps=st.integers(1, 15),
    heavy=st.booleans(),
    shared=st.booleans(),
    data=st.data(),
)
def test_a_rolling_layer_does_what_lists_of_entries_do(seed, length, heads, steps, heavy, shared, data) -> None:
    sinks = data.draw(st.integers(0, length - 1))
    recent = data.draw(st.integers(0, length - sinks)) if heavy else 0
    rule = Rolling(sinks, recent, torch.zeros(1) if heavy else None, shared and heavy)
    start = layer(seed, length, heads[1], rule)
    new = tuple(
        drawn(seed + 3 + number, count, steps, DIM) for number, count in enumerate((heads[0], heads[1], heads[1]))
    )
    expected, left = by_hand(start, new)
    segment = ForkedLayer([start], 0).segments[0]
    assert isinstance(segment, RollingSegment)
    for step in range(steps):
        output = segment.attend(*(one[None, :, step : step + 1] for one in new), None)  # type: ignore[arg-type]
        torch.testing.assert_close(output[0, :, 0].double(), expected[step], rtol=1e-5, atol=1e-5)
        for head in range(heads[1]):
            order = segment.order[0, head].tolist()
            kept = sorted(order if not heavy else [one for at, one in enumerate(order) if at != segment.free[0, head]])
            assert kept == left[step][head]
            assert len(kept) == length


def test_many_tokens_at_once_are_taken_one_by_one() -> None:
    for scores in (None, torch.zeros(1)):
        start = layer(5, 6, 2, Rolling(1, 2 if scores is not None else 0, scores))
        new = [drawn(8 + number, 1, heads, 9, DIM) for number, heads in enumerate((4, 2, 2))]
        whole, single = ForkedLayer([start], 0), ForkedLayer([start], 0)
        whole.offer(*new[1:])
        together = whole.attend(new[0], None)
        for step in range(9):
            single.offer(*(one[:, :, step : step + 1] for one in new[1:]))
            torch.testing.assert_close(single.attend(new[0][:, :, step : step + 1], None), together[:, step : step + 1])


def test_rows_that_roll_and_rows_that_grow_do_not_touch_each_other() -> None:
    heavy, oldest = Rolling(0, 2, torch.zeros(1)), Rolling(1)
    starts = [layer(seed, 6, 2, rule) for seed, rule in enumerate((None, heavy, oldest, heavy, None, oldest))]
    new = [drawn(90 + number, 6, heads, 7, DIM) for number, heads in enumerate((4, 2, 2))]

    def outputs(rows: list[int], leave: list[int]) -> torch.Tensor:
        """Of the rows in `leave`, over seven steps, the others leaving after three."""
        forked, made = ForkedLayer([starts[row] for row in rows], 7), []
        for step in range(7):
            if step == 3:
                forked.select(torch.tensor([rows.index(row) for row in leave]))
                rows = leave
            query, key, value = (one[rows][:, :, step : step + 1] for one in new)
            forked.offer(key, value)
            made.append(forked.attend(query, None)[[rows.index(row) for row in leave]])
        return torch.cat(made, 1)

    for leave in ([0, 1, 2], [1, 3, 5], [2, 4], [3]):
        together = outputs(list(range(6)), leave)
        for at, row in enumerate(leave):
            torch.testing.assert_close(together[at : at + 1], outputs([row], [row]))


def test_rewinding_takes_the_same_steps_again() -> None:
    for rule in (Rolling(1), Rolling(0, 2, torch.zeros(1))):
        cache = ForkedCache([[layer(3, 5, 2, rule)]], 4)
        new = [drawn(20 + number, 1, heads, 4, DIM) for number, heads in enumerate((4, 2, 2))]
        runs = []
        for _ in range(2):
            cache.rewind()
            cache.layers[0].offer(*new[1:])
            runs.append(cache.layers[0].attend(new[0], None))
        assert torch.equal(*runs)


def test_rewinding_after_rows_left_brings_back_those_that_stayed() -> None:
    starts = [layer(seed, 5, 2, Rolling(1)) for seed in (3, 4, 5)]
    cache = ForkedCache([[start] for start in starts], 4)
    cache.select(torch.tensor([1, 2]))
    cache.rewind()
    segment = cache.layers[0].segments[0]
    assert torch.equal(segment.keys, torch.stack([start.keys for start in starts[1:]]))
    assert torch.equal(segment.values, torch.stack([start.values for start in starts[1:]]))


def test_of_entries_that_got_the_same_the_later_one_goes() -> None:
    start = KeptLayer(torch.zeros(1, 3, DIM), torch.zeros(1, 3, DIM), rolling=Rolling(scores=torch.ones(1, 3)))
    segment, nothing = ForkedLayer([start], 0).segments[0], torch.zeros(1, 1, 1, DIM)
    assert isinstance(segment, RollingSegment)
    for _ in range(3):  # each new one gets less than those there: it goes first, and its slot is used again
        segment.attend(nothing, nothing, nothing, None)
        assert segment.free.tolist() == [[3]]
    segment.scores[:] = 0.0
    segment.order[:] = torch.tensor([7, 2, 9, 4])
    segment.facts[0] = 9
    assert segment._victim().tolist() == [[2]]


@pytest.mark.parametrize("shared", [False, True])
def test_h2o_goes_on_from_the_sums_of_the_prompt(shared: bool) -> None:
    whole = view(7, 41)
    method = H2o(keep=Budget.parse("0.3"), window_share=0.25, head_shared=shared)
    kept = method.layer(asked(whole, method), 12, "s")
    assert kept.rolling is not None
    assert kept.indices is not None
    assert (kept.rolling.recent, kept.rolling.sinks, kept.rolling.shared) == (3, 0, shared)
    sums = attention64(whole).sum(1).unflatten(0, (2, -1)).mean(1)
    torch.testing.assert_close(kept.rolling.scores.double(), sums.gather(1, kept.indices), rtol=1e-5, atol=1e-5)  # type: ignore[union-attr]


def test_layers_whose_heads_differ_in_length_cannot_roll() -> None:
    with pytest.raises(ValueError, match="cannot roll"):
        KeptLayer(torch.zeros(2, 3, DIM), torch.zeros(2, 3, DIM), (3, 2), rolling=Rolling())


@pytest.mark.parametrize("form", ["one", "two"])
def test_streaming_llm_decodes_as_if_the_rule_were_applied_anew_at_every_token(model: Adapter, form: str) -> None:
    method = StreamingLlm(keep=Budget.parse("0.1"), sinks=2)
    with model.seams():
        tree = Tree(model, sample(form), [method])
        leaf, prompt = tree.leaf(method), tree.prefilled((None, None, None)).prompt
        ours = forced(model.step, Start(leaf.cache, 0, leaf.position), TOKENS, model.device)
    kept = method.keep.of(prompt.length)
    visible = everything(model, prompt.length + len(TOKENS))
    for mask in visible:
        for row in range(prompt.length, prompt.length + len(TOKENS)):
            mask[:, row, 2 : row + 1 - (kept - 2)] = False
    torch.testing.assert_close(ours, logits(model, prompt, TOKENS, visible), **CLOSE)


def test_h2o_decodes_as_masks_of_what_it_kept_at_every_token(model: Adapter) -> None:
    method = H2o(keep=Budget.parse("0.1"))
    with model.seams():
        tree = Tree(model, sample("one"), [method])
        leaf, prompt = tree.leaf(method), tree.prefilled((None, None, None)).prompt
        cache, made = ForkedCache([leaf.cache], len(TOKENS)), []
        visible = everything(model, prompt.length + len(TOKENS))
        changed = set()
        for step, token in enumerate(TOKENS):
            made.append(model.step(torch.tensor([[token]]), torch.tensor([[leaf.position + step]]), cache)[0, -1])
            for number, forked in enumerate(cache.layers):
                segment, indices = forked.segments[0], leaf.cache[number].indices
                assert isinstance(segment, RollingSegment)
                assert indices is not None
                for head, order in enumerate(segment.order[0].tolist()):
                    count = indices.shape[1]
                    places = [int(indices[head, at]) if at < count else prompt.length + at - count for at in order]
                    visible[number][head, prompt.length + step] = False
                    visible[number][head, prompt.length + step, places] = True
                    changed |= {at for at in order if at >= count} - {count + step}
                    assert len(places) == count + 1
    torch.testing.assert_close(torch.stack(made), logits(model, prompt, TOKENS, visible), **CLOSE)
    assert changed, "some generated token stayed"


@pytest.mark.parametrize("kind", [H2o, StreamingLlm])
def test_a_rolling_cache_says_something_else_than_a_growing_one_and_the_same_in_any_company(
    model: Adapter, kind: type[Any]
) -> None:
    keep = Budget.parse("0.05")
    methods: list[Method] = [kind(keep=keep), kind(keep=keep, evict_decode=False), SnapKv(keep=keep), Dense()]
    with model.seams():
        tree = Tree(model, sample("two"), methods)
        starts = [tree.leaf(method).start for method in methods]
        together = greedy(model.step, starts, 12, (), model.device)
        alone = [greedy(model.step, [start], 12, (), model.device)[0] for start in starts]
        paced = [Paced(model.step, start, 11, model.device) for start in starts[:2]]
        again = [steps().flatten().tolist() for steps in paced]
        rolled, grown = (forced(model.step, start, TOKENS, model.device) for start in starts[:2])
    assert together == alone
    assert again == [row[1:] for row in alone[:2]]
    assert (rolled - grown).abs().max() > 1e-4
    assert kind(keep=keep, **kind.presets["effivlm"]).evict_decode is False
