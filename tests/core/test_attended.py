"""What enters decoder layers, for methods that go on from there: it makes the keys that the layer made, also of pruned ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import pytest
import torch
from forms import sample
from torch import Tensor

from effivlm.compression.base import CachePart, LayerPart, LayerView
from effivlm.models._adapter import Adapter
from effivlm.records import Budget, Cell
from effivlm.run.group import method_of
from effivlm.run.prefill import Prefilled, prefilled
from effivlm.run.tree import Tree
from effivlm.seams.angles import Angles


@dataclass(frozen=True, kw_only=True)
class Asking(CachePart):
    """Asks for what enters layers, or for nothing."""

    attends: ClassVar[bool] = True

    def select(self, view: LayerView, budget: int, sample_id: str) -> Tensor:
        raise NotImplementedError


class Silent(Asking):
    attends = False


def run(model: Adapter, parts: Sequence[CachePart], pruned: bool) -> Prefilled:
    layer = method_of(Cell("twin", "pyramiddrop", "paper", "0.50", "toy")) if pruned else None
    with torch.no_grad(), model.seams():
        prompt = Tree(model, sample("two"), []).prompt((None, None))
        return prefilled(model, prompt, cast(LayerPart | None, layer), parts, "s")


def keys_of(view: LayerView) -> Tensor:
    """Keys [H_kv, N, D] that the layer's own weights make of what entered it."""
    seen = view.attended
    assert seen is not None
    attention: Any = seen.layer.self_attn
    keys: Tensor = attention.k_proj(seen.hidden).unflatten(-1, (-1, view.keys.shape[-1]))
    keys = attention.k_norm(keys) if hasattr(attention, "k_norm") else keys
    return Angles(seen.cosines, seen.sines).turned(keys.transpose(0, 1))


def assert_keys_come_out(model: Adapter) -> None:
    for pruned in (False, True):
        done = run(model, [Asking(keep=Budget.parse("0.50"))], pruned)
        lengths = [view.length for view in done.views]
        assert (len(set(lengths)) > 1) == pruned
        with torch.no_grad():
            for view in done.views:
                assert torch.allclose(keys_of(view), view.keys, atol=1e-5)
        assert len({float(view.attended.entering.sum()) for view in done.views if view.attended}) == len(done.views)


@torch.no_grad()
def test_the_keys_of_every_layer_come_out_of_what_entered_it(model: Adapter) -> None:
    assert_keys_come_out(model)


@torch.no_grad()
def test_the_keys_of_newer_families_come_out_of_it_too(newer: Adapter) -> None:
    assert_keys_come_out(newer)


def test_nothing_is_noted_unless_a_method_asks(model: Adapter) -> None:
    assert all(view.attended is None for view in run(model, [Silent(keep=Budget.parse("0.50"))], True).views)
    run(model, [Asking(keep=Budget.parse("0.50"))], False)
    assert not any(layer._forward_pre_hooks for layer in model.layers), "no hook is left behind"


def test_hooks_go_also_when_the_prefill_breaks(model: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*given: object) -> None:
        raise RuntimeError("half way")

    monkeypatch.setattr(model.layers[-1].mlp, "forward", broken)
    with pytest.raises(RuntimeError, match="half way"):
        run(model, [Asking(keep=Budget.parse("0.50"))], False)
    assert not any(layer._forward_pre_hooks for layer in model.layers)
