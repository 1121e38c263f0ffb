"""Queries before rotary embedding and the angles of positions to come, as methods get them from a prefill."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from brute_rotary import angles
from forms import sample
from hypothesis import given, settings
from hypothesis import strategies as st
from test_methods import asked, view
from test_oracle import TOKENS

from effivlm.compression.base import LayerPart
from effivlm.compression.choose import doubting
from effivlm.decoding.eager import Start, forced
from effivlm.methods.expected_attention import ExpectedAttention
from effivlm.methods.fastv import FastV
from effivlm.methods.random_visual import RandomVisual
from effivlm.methods.sparsevlm import SparseVlm
from effivlm.models._adapter import Adapter
from effivlm.records import Budget
from effivlm.run.tree import Tree
from effivlm.seams.angles import Angles, Moments, moments

KEEP = Budget.parse("0.3")
METHOD = ExpectedAttention(keep=KEEP)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 20), st.sampled_from([2, 8, 64]), st.sampled_from([1.0, 0.7]))
def test_what_was_turned_and_turned_back_is_what_it_was(seed, length, dim, scale) -> None:
    states = torch.randn(3, length, dim, generator=torch.Generator().manual_seed(seed))
    whole = angles(range(seed % 5000, seed % 5000 + length), dim)
    made = Angles(whole.cosines * scale, whole.sines * scale)  # as kinds do that stretch a model's positions
    torch.testing.assert_close(made.back(made.turned(states)), states, rtol=1e-4, atol=1e-4)
    found = moments(made.turned(states), made)
    torch.testing.assert_close(found.mean, states.mean(1), rtol=1e-4, atol=1e-4)
    expected = torch.stack([torch.cov(head.T, correction=0).reshape(dim, dim) for head in states])
    torch.testing.assert_close(found.covariance, expected, rtol=1e-3, atol=1e-4)


@contextmanager
def noted(modules: list[Any]) -> Iterator[list[list[torch.Tensor]]]:
    """What each module returned, call by call."""
    found: list[list[torch.Tensor]] = [[] for _ in modules]
    handles = [
        module.register_forward_hook(lambda _, __, made, number=number: found[number].append(made))
        for number, module in enumerate(modules)
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("form", ["text", "one", "two", "video", "both"])
@pytest.mark.parametrize(
    "layer",
    [None, FastV(keep=KEEP), SparseVlm(keep=KEEP, layers=(8, 16), counts=(2, 1), budget_scope="final")],
    ids=repr,
)
def test_moments_are_those_of_what_the_layers_project(model: Adapter, form: str, layer: LayerPart | None) -> None:
    with model.seams(), noted([block.self_attn.q_proj for block in model.layers]) as projected:
        tree, path = Tree(model, sample(form), [METHOD]), (None, None, None if form == "text" else layer)
        tree.observers = {path: [METHOD]}
        done = tree.prefilled(path)
    for shown, calls in zip(done.views, projected, strict=True):
        (queries,) = (call for call in calls if call.shape[1] == shown.length)
        states = queries[0].unflatten(-1, (-1, shown.keys.shape[-1])).transpose(0, 1)[:, METHOD.sinks :]
        found = shown.moments[METHOD.sinks]
        torch.testing.assert_close(found.mean, states.mean(1), rtol=1e-4, atol=1e-4)
        centred = states - states.mean(1, keepdim=True)
        torch.testing.assert_close(
            found.covariance, centred.transpose(1, 2) @ centred / states.shape[1], rtol=1e-3, atol=1e-4
        )


@pytest.mark.parametrize("form", ["text", "two", "video"])
@pytest.mark.parametrize("pruned", [False, True])
def test_positions_to_come_have_the_angles_that_decoding_turns_by(model: Adapter, form: str, pruned: bool) -> None:
    image = RandomVisual(keep=KEEP) if pruned and form != "text" else None
    with model.seams():
        tree = Tree(model, sample(form), [METHOD])
        tree.observers = {(None, image, None): [METHOD]}
        done = tree.prefilled((None, image, None))
        start = Start(METHOD.compress(done.views, "s"), 0, done.prompt.next_position)
        with noted([model.text.rotary_emb]) as (turned,):
            forced(model.step, start, TOKENS, model.device)
    assert done.views[0].following is not None
    ours = done.views[0].following(len(TOKENS))
    cosines, sines = (torch.cat([one[part][0] for one in turned]) for part in (0, 1))
    torch.testing.assert_close(ours.cosines[: len(cosines)], cosines)
    torch.testing.assert_close(ours.sines[: len(sines)], sines)
    assert len(cosines) >= len(TOKENS) - 1


def test_asking_for_positions_to_come_leaves_the_model_as_it_was(
    model: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some kinds of rotary embedding stretch their angles for ever once they have seen a long prompt."""
    rotary = model.text.rotary_emb
    seen: list[Any] = []
    forward = type(rotary).forward

    def remembering(self: Any, like: torch.Tensor, positions: torch.Tensor) -> Any:
        seen.append(self)
        self.inv_freq = self.inv_freq / 2
        return forward(self, like, positions)

    monkeypatch.setattr(type(rotary), "forward", remembering)
    before = rotary.inv_freq.clone()
    model.angles(model.step_positions(torch.arange(4)[None]), torch.float32)
    assert seen
    assert torch.equal(rotary.inv_freq, before)


def test_a_layer_that_was_looked_at_without_its_angles_is_refused() -> None:
    with pytest.raises(ValueError, match="without its rotary embedding"):
        METHOD.compress([view(0, 30)], "s")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="only a GPU can be waited for")
def test_on_a_gpu_the_same_entries_stay_and_nothing_waits_for_it() -> None:
    shown = asked(view(5, 300), METHOD)
    following = angles(range(300, 812), 8).to(torch.device("cuda"))
    there = replace(
        shown,
        **{name: getattr(shown, name).cuda() for name in ("queries", "keys", "values", "visual")},
        moments={start: Moments(one.mean.cuda(), one.covariance.cuda()) for start, one in shown.moments.items()},
        following=lambda count: Angles(following.cosines[:count], following.sines[:count]),
    )
    METHOD.compress([there], "warm")
    there = replace(there, keys=there.keys.clone())
    torch.cuda.set_sync_debug_mode("error")
    try:
        with doubting():
            (ours,) = METHOD.compress([there], "s")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    (theirs,) = METHOD.compress([shown], "s")
    assert ours.indices is not None
    assert theirs.indices is not None
    assert ours.indices.tolist() == theirs.indices.tolist()
