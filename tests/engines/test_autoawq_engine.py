"""AutoAWQ's scales and clips on decoder layers of the families, beside plain rounding and the default engine."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from effivlm.compression.weights import Goal, Linear
from effivlm.models._torchvision import ensure_torchvision
from effivlm.weights._autoawq import Seen, quantizer, smooth
from effivlm.weights.engines import solved

pytestmark = pytest.mark.autoawq
ensure_torchvision()  # or no model class can be imported
GOAL = Goal.parse("w4g32")


def layer(heads: int = 4, kv_heads: int = 4, inner: int = 192, salient: float = 16.0) -> nn.Module:
    """A decoder layer of Qwen2 in which a few channels of every input are large, as they are in large models."""
    from transformers.models.qwen2.modeling_qwen2 import Qwen2Config, Qwen2DecoderLayer

    torch.manual_seed(0)
    sizes = {"hidden_size": 32 * heads, "intermediate_size": inner, "num_hidden_layers": 1}
    config = Qwen2Config(**sizes, num_attention_heads=heads, num_key_value_heads=kv_heads)
    config._attn_implementation = "sdpa"
    made = Qwen2DecoderLayer(config, 0).eval().requires_grad_(False)
    for norm in (made.input_layernorm, made.post_attention_layernorm):
        norm.weight[::17] *= salient
    for linear in (made.self_attn.v_proj, made.mlp.up_proj):
        linear.weight[::13] *= salient
    return made


def samples(width: int, lengths: Sequence[int] = (5, 17, 30, 64)) -> list[Seen]:
    """Hidden states of samples of different lengths."""
    from transformers.models.qwen2.modeling_qwen2 import Qwen2Config, Qwen2RotaryEmbedding

    torch.manual_seed(1)
    rotary = Qwen2RotaryEmbedding(Qwen2Config(hidden_size=128, num_attention_heads=4))
    found = []
    for length in lengths:
        hidden = torch.randn(1, length, width)
        angles = rotary(hidden, torch.arange(length)[None])
        found.append(Seen(hidden, {"position_embeddings": angles, "attention_mask": None, "past_key_values": None}))
    return found


def outputs(module: Any, seen: Sequence[Seen]) -> Tensor:
    """What leaves a layer, over the tokens of all samples."""
    with torch.no_grad():
        made = [module(one.hidden, **one.arguments) for one in seen]
    return torch.cat([(one[0] if isinstance(one, tuple) else one).flatten(0, -2) for one in made])


def on_grid(module: nn.Module, goal: Goal = GOAL, engine: str = "autoawq") -> nn.Module:
    """A copy of a layer with all its linears rounded."""
    rounded = copy.deepcopy(module)
    for name, one in rounded.named_modules():
        if isinstance(one, nn.Linear):
            one.weight.copy_(
                solved(engine, "rtn", Linear(name, one.weight, goal, 0, "float32"), symmetric=False).weight
            )
    return rounded


def apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).square().mean())


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_scales_alone_change_nothing_until_weights_are_rounded_and_then_halve_the_error(kv_heads: int) -> None:
    plain, seen = layer(kv_heads=kv_heads), samples(128)
    scaled, dense = copy.deepcopy(plain), outputs(plain, seen)
    smooth(scaled, seen, bits=4, group=32, symmetric=False, clip=False)
    assert apart(outputs(scaled, seen), dense) < 1e-9 * float(dense.square().mean())
    assert not torch.equal(scaled.self_attn.q_proj.weight, plain.self_attn.q_proj.weight)
    moved = not torch.equal(scaled.self_attn.o_proj.weight, plain.self_attn.o_proj.weight)
    assert moved == (kv_heads == 4)  # a value that several queries share cannot take over their scales
    assert apart(outputs(on_grid(scaled), seen), dense) < 0.5 * apart(outputs(on_grid(plain), seen), dense)


def test_what_is_searched_on_is_put_back_as_it_was() -> None:
    """On a CPU AutoAWQ keeps the weights of the first point of its search, because `.cpu()` copies nothing there."""
    plain, seen = layer(), samples(128)
    search = quantizer()(plain, seen, 4, 32, False, False)
    before = copy.deepcopy(plain.state_dict())
    linears = {name: one for name, one in plain.named_modules() if isinstance(one, nn.Linear)}
    with torch.no_grad():
        found = search._get_input_feat(plain, linears)
        for group in search.awq_model.get_layers_for_scaling(plain, found, search.module_kwargs):
            search._search_best_scale(plain, **group)
    assert [name for name, tensor in plain.state_dict().items() if not torch.equal(tensor, before[name])] == []
    assert "state_dict" not in vars(plain.mlp)


def test_samples_do_not_see_each_other() -> None:
    plain, seen = layer(), samples(128)
    search = quantizer()(plain, seen, 4, 32, False, False)
    inputs = torch.cat([one.hidden[0] for one in seen])
    with torch.no_grad():
        together = search._module_forward(inputs, plain.self_attn, {})
        alone = [plain.self_attn(one.hidden, **one.arguments)[0][0] for one in seen]
        assert torch.equal(together, torch.cat(alone))
        assert torch.equal(search._module_forward(inputs, plain.mlp, {}), plain.mlp(inputs))


def test_clips_lower_the_error_of_what_is_clipped_and_leave_queries_and_keys_alone() -> None:
    plain, seen = layer(salient=1.0), samples(128)
    scaled, clipped = copy.deepcopy(plain), copy.deepcopy(plain)
    smooth(scaled, seen, bits=3, group=32, symmetric=False, clip=False)
    smooth(clipped, seen, bits=3, group=32, symmetric=False, clip=True)
    for name in ("q_proj", "k_proj"):
        assert torch.equal(clipped.self_attn.get_submodule(name).weight, scaled.self_attn.get_submodule(name).weight)
    one, other = scaled.mlp.gate_proj.weight, clipped.mlp.gate_proj.weight
    changed = one != other
    assert 0 < int(changed.sum()) < 0.2 * changed.numel()
    assert bool((other[changed].abs() < one[changed].abs()).all())
    goal, dense = Goal.parse("w3g32"), outputs(plain, seen)
    assert apart(outputs(on_grid(clipped, goal), seen), dense) < apart(outputs(on_grid(scaled, goal), seen), dense)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("goal", ["w4g32", "w3g16", "w8", "w2g8"])
def test_its_grid_is_near_the_default_engines(goal: str, symmetric: bool) -> None:
    torch.manual_seed(0)
    weight = torch.randn(24, 96) * torch.rand(24, 1)
    one = Linear("layer", weight, Goal.parse(goal), 0, "float16")
    default, other = (solved(engine, "rtn", one, symmetric=symmetric) for engine in ("llmcompressor", "autoawq"))
    assert other.grid is not None
    assert default.grid is not None
    assert other.grid.scale.shape == default.grid.scale.shape
    assert other.grid.scale.dtype == torch.float16
    assert (other.grid.zero is None) == symmetric
    ratio = apart(other.weight, weight) / apart(default.weight, weight)
    assert 0.8 < ratio < (1.6 if symmetric else 1.05)  # its symmetric grid leaves the lowest code out of the scale


@pytest.mark.parametrize(
    ("changed", "how", "told"),
    [
        ({"inner": 200}, {"clip": False}, r"mlp.down_proj: groups of 32 do not divide its 200 inputs"),
        ({"inner": 160}, {}, "mlp.gate_proj: autoawq clips 64 rows at a time, and its 160"),
        ({}, {"seen": []}, "the calibration set is empty"),
        ({}, {"module": nn.Sequential(nn.Linear(4, 4))}, "cannot scale a Sequential: it has no input_layernorm"),
    ],
    ids=["group", "clip", "empty", "form"],
)
def test_what_it_cannot_do_is_refused_before_a_weight_changes(
    changed: dict[str, int], how: dict[str, Any], told: str
) -> None:
    module = how.get("module") or layer(**changed)
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(ValueError, match=told):
        smooth(module, how.get("seen", samples(128)), bits=4, group=32, symmetric=False, clip=how.get("clip", True))
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_inputs_that_are_not_finite_are_an_error() -> None:
    module, seen = layer(), samples(128)
    seen[1].hidden[0, 3, 5] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        smooth(module, seen, bits=4, group=32, symmetric=False, clip=False)
