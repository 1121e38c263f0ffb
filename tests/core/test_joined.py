"""Projections of one input in one product: the same numbers, from the same memory, and layers as they were afterwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from forms import sample

from effivlm.decoding.caches import PromptCache
from effivlm.decoding.joined import Columns, joined
from effivlm.models._adapter import Adapter


def logits(model: Adapter) -> torch.Tensor:
    inputs = model.prepare(sample("one"))
    with model.seams():
        return model.prefill(model.prompt(inputs, model.encode(inputs)), PromptCache())


def test_a_joined_model_says_what_it_said_and_is_as_it_was_afterwards(model: Adapter) -> None:
    expected, size = logits(model), model.weight_bytes()
    parts = [layer.self_attn.q_proj for layer in model.layers]  # type: ignore[union-attr]
    with joined(model.layers):
        assert all(isinstance(layer.self_attn.k_proj, Columns) for layer in model.layers)  # type: ignore[union-attr]
        assert all(isinstance(layer.mlp.up_proj, Columns) for layer in model.layers)  # type: ignore[union-attr]
        torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-4)
        assert model.weight_bytes() == size
    assert [layer.self_attn.q_proj for layer in model.layers] == parts  # type: ignore[union-attr]
    torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-4)
    assert model.weight_bytes() == size


def test_weights_stand_in_memory_once(model: Adapter) -> None:
    attention: Any = model.layers[0].self_attn
    with joined(model.layers):
        whole = attention.q_proj.joint
    with joined(model.layers):
        assert attention.q_proj.joint is whole
    first, second, third = attention.q_proj, attention.k_proj, attention.v_proj
    assert first.weight.data_ptr() == whole.weight.data_ptr()
    step = whole.weight.element_size() * first.in_features
    assert second.weight.data_ptr() == whole.weight.data_ptr() + step * first.out_features
    assert third.weight.untyped_storage().data_ptr() == whole.weight.untyped_storage().data_ptr()


def test_layers_are_restored_after_an_error(model: Adapter) -> None:
    before = model.layers[0].mlp.gate_proj  # type: ignore[union-attr]
    with pytest.raises(RuntimeError, match="inside"), joined(model.layers):
        raise RuntimeError("inside")
    assert model.layers[0].mlp.gate_proj is before  # type: ignore[union-attr]


def test_other_kinds_of_projections_are_left_alone(model: Adapter) -> None:
    attention: Any = model.layers[0].self_attn

    class Special(torch.nn.Linear):
        pass

    own, special = attention.k_proj, Special(4, 4)
    attention.k_proj = special
    with joined(model.layers):
        assert attention.k_proj is special
        assert not isinstance(attention.q_proj, Columns)
        assert isinstance(model.layers[1].self_attn.q_proj, Columns)  # type: ignore[union-attr]
    attention.k_proj = own


@pytest.mark.parametrize("around", ["forward", "hook", "before"])
def test_a_projection_with_something_done_around_it_is_not_passed_by(around: str, model: Adapter) -> None:
    attention: Any = model.layers[0].self_attn
    seen: list[int] = []
    plain = attention.k_proj.forward

    def forward(entered: torch.Tensor) -> torch.Tensor:
        seen.append(entered.shape[-1])
        return plain(entered)  # type: ignore[no-any-return]

    handle: Any = None
    if around == "forward":
        attention.k_proj.forward = forward
    elif around == "hook":
        handle = attention.k_proj.register_forward_hook(lambda module, given, made: seen.append(made.shape[-1]))
    else:
        handle = attention.k_proj.register_forward_pre_hook(lambda module, given: seen.append(given[0].shape[-1]))
    try:
        with joined(model.layers):
            assert not isinstance(attention.q_proj, Columns)
            assert isinstance(model.layers[1].self_attn.q_proj, Columns)  # type: ignore[union-attr]
            logits(model)
    finally:
        if handle is None:
            del attention.k_proj.forward
        else:
            handle.remove()
    assert len(seen) == 1


def test_projections_asked_out_of_order_are_an_error(model: Adapter) -> None:
    attention: Any = model.layers[0].self_attn
    entered = torch.zeros(1, 1, attention.q_proj.in_features)
    with joined(model.layers), pytest.raises(RuntimeError, match="out of order"):
        attention.k_proj(entered)
