"""The mathematics of methods of weights, one linear layer at a time: against brute force, and properties for any shape."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from effivlm.compression.weights import Goal, Linear
from effivlm.methods.awq import Awq
from effivlm.methods.magnitude import Magnitude
from effivlm.methods.wanda import Wanda
from effivlm.records import Budget
from effivlm.weights.engines import solved
from effivlm.weights.grids import codes_of, grid_of, rounded, weight_of
from effivlm.weights.seen import Seen
from effivlm.weights.smoothing import best_scale

SEEDS = st.integers(0, 10**6)
SHAPES = st.tuples(st.integers(1, 33), st.integers(2, 70))
HOW: dict[str, dict[str, Any]] = {
    "sparsegpt": {"damp": 0.01, "block": 128},
    "gptq": {"damp": 0.01, "block": 128, "symmetric": False},
    "rtn": {"symmetric": False},
}


def linear(
    seed: int, rows: int, columns: int, label: str, *, dead: int = 0, zeros: int | None = None, tokens: int = 300
) -> tuple[Linear, Tensor]:
    """A layer with correlated inputs [tokens, columns], the first `dead` of them always zero."""
    rng = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=rng)
    inputs = torch.randn(tokens, columns, generator=rng) @ torch.randn(columns, columns, generator=rng) / columns**0.5
    inputs = inputs + torch.randn(tokens, 1, generator=rng)
    inputs[:, :dead] = 0
    goal = Goal.parse(label)
    count = round(goal.zeros * weight.numel()) if zeros is None else zeros
    hessian = inputs.T @ inputs
    return Linear("layer", weight, goal, count, "float16", inputs.square().sum(0), hessian), inputs


def error(one: Linear, new: Tensor) -> float:
    assert one.hessian is not None
    change = new - one.weight
    return float(((change @ one.hessian) * change).sum())


def solve(rule: str, one: Linear, **how: Any) -> Tensor:
    return solved("llmcompressor", rule, one, **{**HOW.get(rule, {}), **how}).weight


@settings(deadline=None, max_examples=30)
@given(SEEDS, SHAPES, st.fractions(0, 1, max_denominator=40), st.integers(0, 3))
def test_wandas_mask_is_that_of_a_brute_force_and_its_total_is_exact(seed, shape, share, dead) -> None:
    rows, columns = shape
    zeros = int(share * rows * columns)
    one, _ = linear(seed, rows, columns, "sparsity0.50", dead=min(dead, columns - 1), zeros=zeros)
    new = solve("wanda", one)
    metric = (one.weight.abs() * one.norms.sqrt()).tolist()  # type: ignore[union-attr]
    gone = 0
    for row in range(rows):
        count = zeros * (row + 1) // rows - zeros * row // rows
        order = sorted(range(columns), key=metric[row].__getitem__)
        expected = one.weight[row].clone()
        expected[order[:count]] = 0
        assert torch.equal(new[row], expected)
        gone += count
    assert gone == zeros == int((new == 0).sum())


@settings(deadline=None, max_examples=30)
@given(SEEDS, st.integers(1, 20), st.integers(1, 12), st.sampled_from([(2, 4), (1, 4), (4, 8), (1, 2)]))
def test_a_pattern_holds_in_every_group_and_wandas_keeps_the_largest(seed, rows, groups, pattern) -> None:
    stay, of = pattern
    one, _ = linear(seed, rows, of * groups, f"{stay}:{of}")
    metric = one.weight.abs() * one.norms.sqrt()  # type: ignore[union-attr]
    for rule in ("magnitude", "wanda", "sparsegpt"):
        new = solve(rule, one)
        assert ((new.unflatten(1, (-1, of)) == 0).sum(2) == of - stay).all(), rule
        if rule != "sparsegpt":
            size = metric if rule == "wanda" else one.weight.abs()
            kept, lost = size.masked_fill(new == 0, torch.inf), size.masked_fill(new != 0, 0)
            assert (kept.unflatten(1, (-1, of)).amin(2) >= lost.unflatten(1, (-1, of)).amax(2)).all()


@pytest.mark.parametrize(("stay", "of", "columns"), [(1, 3, 300), (2, 6, 300), (3, 5, 130), (20, 99, 198)])
def test_a_pattern_holds_where_its_groups_do_not_fill_a_block_of_128_columns(stay: int, of: int, columns: int) -> None:
    new = solve("sparsegpt", linear(of, 6, columns, f"{stay}:{of}")[0])
    assert ((new.unflatten(1, (-1, of)) == 0).sum(2) == of - stay).all()


@pytest.mark.parametrize("label", ["2:4", "1:4", "4:8", "3:4"])
@pytest.mark.parametrize("rule", ["magnitude", "wanda"])
def test_of_equal_weights_in_a_group_the_first_ones_go(rule: str, label: str) -> None:
    one, _ = linear(0, 5, 24, label)
    weight, norms = one.weight.sign() * 0.5, torch.where(torch.arange(24) < 9, 0.0, 1.0)
    one = Linear(one.name, weight, one.goal, one.zeros, one.stored, norms)
    stay, of = map(int, label.split(":"))
    new = solve(rule, one)
    for row, group in product(range(5), range(0, 24, of)):
        size = [float(norms[group + place]) if rule == "wanda" else 0.5 for place in range(of)]
        lost = {group + place for place in sorted(range(of), key=size.__getitem__)[: of - stay]}
        assert {group + place for place in range(of) if new[row, group + place] == 0} == lost


@pytest.mark.parametrize("rule", ["magnitude", "wanda", "sparsegpt"])
def test_inputs_that_do_not_split_into_groups_are_refused(rule: str) -> None:
    with pytest.raises(ValueError, match="layer: 10 inputs do not split into groups of 4"):
        solve(rule, linear(0, 4, 10, "2:4")[0])


@settings(deadline=None, max_examples=20)
@given(SEEDS, st.integers(4, 40), st.integers(8, 300), st.sampled_from(["0.20", "0.50", "0.70"]), st.integers(0, 4))
def test_sparsegpt_misses_its_total_by_half_a_weight_a_block_at_most(seed, rows, columns, share, dead) -> None:
    one, _ = linear(seed, rows, columns, f"sparsity{share}", dead=dead)
    new = solve("sparsegpt", one)
    blocks = -(-columns // 128)
    assert abs(int((new == 0).sum()) - one.zeros) <= max(1, blocks / 2 + 1)
    assert torch.isfinite(new).all()


@settings(deadline=None, max_examples=10)
@given(SEEDS, st.sampled_from([(16, 24), (9, 40), (32, 130)]))
def test_what_makes_up_for_errors_reconstructs_better(seed, shape) -> None:
    for label, better, worse in (("sparsity0.50", "sparsegpt", "magnitude"), ("w3", "gptq", "rtn")):
        one, _ = linear(seed, *shape, label)
        assert error(one, solve(better, one)) < error(one, solve(worse, one))
    one, _ = linear(seed, shape[0], shape[1] // 4 * 4, "2:4")
    assert error(one, solve("sparsegpt", one)) < error(one, solve("magnitude", one))


def test_an_input_that_is_always_zero_loses_its_weights_first_and_disturbs_no_other() -> None:
    one, _ = linear(3, 8, 20, "sparsity0.10", dead=2)
    new = solve("sparsegpt", one)
    assert (new[:, :2] == 0).all()
    assert one.zeros == 16
    assert torch.equal(new[:, 2:], one.weight[:, 2:])
    grid, _ = linear(3, 8, 20, "w4", dead=2)
    assert torch.isfinite(solve("gptq", grid)).all()


@pytest.mark.parametrize(("rule", "label"), [("sparsegpt", "sparsity0.50"), ("gptq", "w4")])
def test_a_hessian_without_an_inverse_is_an_error_and_no_identity(rule: str, label: str) -> None:
    one, _ = linear(0, 6, 40, label, tokens=5)
    one.hessian.mul_(1e6)  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="layer: its inputs leave a Hessian that cannot be inverted"):
        solve(rule, one, damp=0.0)


def test_without_correlation_gptq_rounds_and_sparsegpt_takes_the_smallest_of_a_block() -> None:
    for label, rule, floor in (("w4g8", "gptq", "rtn"), ("sparsity0.50", "sparsegpt", "magnitude")):
        one, _ = linear(1, 12, 32, label)
        one = Linear(one.name, one.weight, one.goal, one.zeros, one.stored, one.norms, torch.eye(32))
        torch.testing.assert_close(solve(rule, one), solve(floor, one), rtol=0, atol=1e-6)


@settings(deadline=None, max_examples=30)
@given(SEEDS, SHAPES, st.integers(2, 8), st.booleans(), st.sampled_from(["float16", "bfloat16", "float32"]), st.data())
def test_codes_are_in_range_and_weights_half_a_step_from_where_they_were(
    seed, shape, bits, symmetric, stored, data
) -> None:
    rows, columns = shape
    divisors = [size for size in range(1, columns + 1) if columns % size == 0 and (size > 2 or size == columns)]
    group = data.draw(st.sampled_from(divisors))
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) + data.draw(
        st.sampled_from([0, 5])
    )
    grid = grid_of(weight, Goal.parse(f"w{bits}" if group == columns else f"w{bits}g{group}"), symmetric, stored)
    codes = codes_of(weight, grid)
    assert -(2 ** (bits - 1)) <= int(codes.min()) <= int(codes.max()) < 2 ** (bits - 1)
    step = grid.scale.float().repeat_interleave(group, 1)
    slack = {"float16": 0.01, "bfloat16": 0.06, "float32": 1e-4}[stored] * 2**bits
    assert ((weight_of(codes, grid) - weight).abs() <= step * (0.51 + slack)).all()
    again = codes_of(weight_of(codes, grid), grid)
    assert stored != "float32" or torch.equal(again, codes)


def test_a_grid_holds_zero_so_that_a_one_sided_group_is_exact() -> None:
    weight = torch.tensor([[1.0, 2.0, 3.0, 4.0, 15.0, 0.0]])
    made = rounded(weight, grid_of(weight, Goal.parse("w4"), False, "float32"))
    assert torch.equal(made.weight, weight)


@pytest.mark.parametrize(("label", "bound"), [("fp8", 2**-4), ("int8", None)])
def test_eight_bits_keep_weights_to_their_precision(label: str, bound: float | None) -> None:
    weight = torch.randn(7, 33, generator=torch.Generator().manual_seed(0))
    made = rounded(weight, grid_of(weight, Goal.parse(label), True, "float32"))
    step = weight.abs().amax(1, keepdim=True) / 127
    allowed = step if bound is None else weight.abs() * bound + weight.abs().amax(1, keepdim=True) / 448 * 2**-9
    assert ((made.weight - weight).abs() <= allowed).all()
    assert made.codes is not None
    assert made.codes.dtype == (torch.int8 if bound is None else torch.float8_e4m3fn)


def seen_of(inputs: Tensor) -> Seen:
    seen = Seen(inputs.shape[1], inputs.device, True)
    seen.add(inputs, None)
    return seen


@settings(deadline=None, max_examples=20)
@given(SEEDS, st.booleans())
def test_awqs_scale_is_never_worse_than_rounding_and_much_better_on_salient_channels(seed, salient) -> None:
    rng = torch.Generator().manual_seed(seed)
    inputs, weight = torch.randn(200, 64, generator=rng), torch.randn(48, 64, generator=rng)
    if salient:
        inputs[:, :3] *= 24
        weight[:, :3] /= 24
    goal, seen = Goal.parse("w4g32"), seen_of(inputs)
    scale = best_scale([weight], seen, goal, 20, False, "float32")
    lost = {}
    for name, by in (("rtn", torch.ones(64)), ("awq", scale)):
        new = rounded(weight * by, grid_of(weight * by, goal, False, "float32")).weight / by
        lost[name] = float(((new - weight) @ inputs.T).square().sum())
    assert lost["awq"] <= lost["rtn"] * 1.0001
    assert not salient or lost["awq"] < 0.5 * lost["rtn"]


@settings(deadline=None, max_examples=30)
@given(SEEDS, st.integers(1, 40), st.integers(1, 5))
def test_sums_of_inputs_do_not_depend_on_how_tokens_come_and_count_their_weights(seed, tokens, parts) -> None:
    rng = torch.Generator().manual_seed(seed)
    inputs, weights = torch.randn(tokens, 6, generator=rng), torch.rand(tokens, generator=rng) + 0.1
    whole, split = Seen(6, inputs.device, True), Seen(6, inputs.device, True)
    whole.add(inputs, weights)
    for piece, weight in zip(inputs.tensor_split(parts), weights.tensor_split(parts), strict=True):
        split.add(piece, weight)
    expected = (inputs * weights[:, None]).T @ inputs
    for seen in (whole, split):
        torch.testing.assert_close(seen.hessian, expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(seen.norms, expected.diagonal(), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(seen.sizes, (inputs.abs() * weights[:, None]).sum(0), rtol=1e-4, atol=1e-4)
    assert split.total == pytest.approx(float(weights.sum()), rel=1e-5)


@pytest.mark.parametrize(
    ("label", "kind", "zeros", "bits", "group"),
    [
        ("sparsity0.50", "sparsity", Fraction(1, 2), 16, 0),
        ("sparsity0.2", "sparsity", Fraction(1, 5), 16, 0),
        ("2:4", "n:m", Fraction(1, 2), 16, 0),
        ("w4g128", "bits", 0, 4, 128),
        ("w8", "bits", 0, 8, 0),
        ("fp8", "bits", 0, 8, 0),
        ("1.00", "none", 0, 16, 0),
    ],
)
def test_labels_say_what_is_asked(label: str, kind: str, zeros: Fraction, bits: int, group: int) -> None:
    goal = Goal.parse(label)
    assert (goal.kind, goal.zeros, goal.bits, goal.group) == (kind, zeros, bits, group)


@pytest.mark.parametrize("label", ["sparsity1.5", "sparsity0", "4:2", "4:4", "w9", "w4g0", "0.30", "w4g", "fp16", ""])
def test_labels_of_no_kind_are_refused(label: str) -> None:
    with pytest.raises(ValueError, match=f"^budget '{label}'"):
        Goal.parse(label)


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        (
            Wanda,
            {"keep": Budget.parse("0.30")},
            "budget '0.30' is none of wanda: it takes budgets such as sparsity0.20",
        ),
        (Wanda, {"keep": Budget.parse("w4g128")}, "budget 'w4g128' is none of wanda"),
        (Awq, {"keep": Budget.parse("2:4")}, "budget '2:4' is none of awq: it takes budgets such as w4g128"),
        (Awq, {"keep": Budget.parse("fp8")}, "budget 'fp8' is none of awq"),
        (Magnitude, {"engine": "other"}, "engine 'other' is not one of llmcompressor"),
        (Wanda, {"tokens": "some"}, "tokens 'some' is not one of all, balanced, text, visual"),
        (Wanda, {"targets": "language+head"}, "targets 'head' is not one of language, tower, projector"),
        (Wanda, {"samples": 0}, "samples 0 must be 1 or more: the calibration set would be empty"),
    ],
)
def test_fields_that_cannot_be_are_refused_by_name(kind: Any, values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        kind(**values)


def test_an_engine_or_a_rule_that_is_not_there_is_named() -> None:
    one, _ = linear(0, 2, 4, "2:4")
    with pytest.raises(ValueError, match="engine 'nowhere' is unknown"):
        solved("nowhere", "wanda", one)
    with pytest.raises(ValueError, match="engine 'llmcompressor' has no rule 'magic'"):
        solved("llmcompressor", "magic", one)
