"""The walk through real architectures: what is gathered, what is solved, how blocks are scored and what their shares are."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from effivlm.compression.weights import Goal, Linear
from effivlm.methods.awq import Awq
from effivlm.methods.ecoflap import EcoFlap
from effivlm.methods.gptq import Gptq
from effivlm.methods.wanda import Wanda
from effivlm.models._adapter import Adapter
from effivlm.models._sources import resolve
from effivlm.records import Budget, Settings, Unsupported
from effivlm.run.group import open_model
from effivlm.weights import calibration
from effivlm.weights.allocation import allocated
from effivlm.weights.blocks import Walk, compressed, linears_of, outline
from effivlm.weights.engines import solved
from effivlm.weights.scoring import by_gradient, by_noise, loss_of, scores
from effivlm.weights.seen import gathered, in_order
from effivlm.weights.texts import Text, entering, texts, through, token_weights

PAIRS = (
    ("sparsity0.50", "sparsegpt", {"damp": 0.01, "block": 128}, "magnitude", {}),
    ("2:4", "sparsegpt", {"damp": 0.01, "block": 128}, "magnitude", {}),
    ("w4", "gptq", {"damp": 0.01, "block": 128, "symmetric": False}, "rtn", {"symmetric": False}),
)


@pytest.fixture
def fresh(model: Adapter) -> Any:
    """A model of one's own, for what changes its weights."""
    opened = open_model(model.source, Settings())
    yield opened
    opened.close()


def samples(model: Adapter, count: int) -> Any:
    return calibration.drawn("micro", model.source, count, 0, videos=True).samples


def read(model: Adapter, count: int = 3, tokens: str = "all") -> list[Text]:
    return texts(model, samples(model, count), tokens)


def walk_of(model: Adapter, count: int = 3, tokens: str = "all") -> Walk:
    shown = samples(model, count)
    return Walk(model, shown, lambda: texts(model, shown, tokens))


def test_what_makes_up_for_errors_reconstructs_better_in_every_linear_of_every_family(model: Adapter) -> None:
    blocks, worse = outline(model, "language"), []
    walk, checked = walk_of(model), 0
    with torch.no_grad():
        for stage in walk.stages(blocks):
            seen = gathered(stage.linears, "hessian", stage.samples, stage.run, stage.weights)
            for name, linear in stage.linears.items():
                hessian = seen[name].hessian
                assert hessian is not None
                for label, better, how, floor, plain in PAIRS:
                    goal = Goal.parse(label)
                    zeros = round(goal.zeros * linear.weight.numel())
                    one = Linear(name, linear.weight, goal, zeros, "float16", seen[name].norms, hessian)
                    new = [solved("llmcompressor", better, one, **how), solved("llmcompressor", floor, one, **plain)]
                    lost = [
                        float((((made.weight - one.weight) @ hessian) * (made.weight - one.weight)).sum())
                        for made in new
                    ]
                    worse += [(stage.name, name, label, lost)] if lost[0] >= lost[1] else []
                    checked += 1
            walk.leave(stage)
    assert worse == []
    assert checked == len(PAIRS) * 7 * len(model.layers)


def test_the_walk_computes_what_the_model_does(model: Adapter) -> None:
    walk, blocks = walk_of(model), outline(model, "language")
    with torch.no_grad():
        for stage in walk.stages(blocks):
            walk.leave(stage)
        for text, hidden in zip(walk.texts, walk.hidden, strict=True):
            stock = model.text(
                inputs_embeds=text.embeds, position_ids=text.positions, use_cache=False
            ).last_hidden_state
            assert torch.equal(model.text.norm(hidden), stock)


def test_layers_see_what_the_new_weights_before_them_make(fresh: Adapter) -> None:
    walk, method = walk_of(fresh), Wanda(keep=Budget.parse("sparsity0.50"))
    blocks = outline(fresh, "language")
    zeros = method.zeros(
        {name: [one.weight.numel() for one in linears_of(block, name).values()] for name, block in blocks.items()}, {}
    )
    with torch.no_grad():
        for stage in walk.stages(blocks):
            compressed(stage, method, zeros[stage.name], "float32")
            walk.leave(stage)
        (text, *_), (hidden, *_) = walk.texts, walk.hidden
        first, others = entering(fresh, text)
        for number, layer in enumerate(fresh.layers):
            first = through(layer, first, others[number])
    assert torch.equal(first, hidden)
    gone = sum(int((one.weight == 0).sum()) for block in blocks.values() for one in linears_of(block, "").values())
    assert gone == sum(map(sum, zeros.values()))
    assert (
        abs(gone / sum(one.weight.numel() for block in blocks.values() for one in linears_of(block, "").values()) - 0.5)
        < 1e-4
    )


def test_linears_are_met_in_order_and_those_with_one_input_share_its_sums(model: Adapter) -> None:
    walk = walk_of(model, 1)
    with torch.no_grad():
        stage = next(walk.stages(outline(model, "language")))
        groups = in_order(stage.linears, stage.run)
        seen = gathered(stage.linears, "hessian", 1, stage.run, stage.weights)
        alone = gathered(
            {"self_attn.k_proj": stage.linears["self_attn.k_proj"]}, "hessian", 1, stage.run, stage.weights
        )
    assert groups == [
        ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
        ["self_attn.o_proj"],
        ["mlp.gate_proj", "mlp.up_proj"],
        ["mlp.down_proj"],
    ]
    assert all(seen[name] is seen[group[0]] for group in groups for name in group)
    assert seen["self_attn.q_proj"] is not seen["mlp.up_proj"]
    assert torch.equal(alone["self_attn.k_proj"].hessian, seen["self_attn.k_proj"].hessian)  # type: ignore[arg-type]


def test_a_sequential_method_sees_inputs_that_those_before_it_changed(
    fresh: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs: dict[bool, list[Tensor]] = {}
    before = {name: value.clone() for name, value in fresh.model.named_parameters()}
    for sequential in (True, False):
        method = Gptq(keep=Budget.parse("w2"), sequential=sequential)
        solve = Gptq.solve
        kept = inputs.setdefault(sequential, [])
        monkeypatch.setattr(
            Gptq, "solve", lambda self, one, kept=kept, solve=solve: (kept.append(one.norms), solve(self, one))[1]
        )
        with torch.no_grad():
            stage = next(walk_of(fresh, 1).stages(outline(fresh, "language")))
            compressed(stage, method, [0] * 7, "float32")
            for name, value in fresh.model.named_parameters():
                value.copy_(before[name])
        monkeypatch.undo()
    assert all(torch.equal(*pair) for pair in list(zip(*inputs.values(), strict=True))[:3])
    assert not any(torch.equal(*pair) for pair in list(zip(*inputs.values(), strict=True))[3:])


def test_awq_scales_a_block_without_changing_what_it_computes(fresh: Adapter) -> None:
    method = Awq(keep=Budget.parse("w4g32"))
    walk = walk_of(fresh, 1)
    with torch.no_grad():
        stage = next(walk.stages(outline(fresh, "language")))
        before, weight = stage.run(0), stage.linears["mlp.up_proj"].weight.clone()
        seen = gathered(stage.linears, "hessian", 1, stage.run, stage.weights)
        from effivlm.weights.smoothing import Block

        changed: set[str] = set()
        method.prepare(Block(stage.module, stage.linears, seen, "float32", changed, stage.samples, stage.run))
        after = stage.run(0)
    assert not torch.equal(stage.linears["mlp.up_proj"].weight, weight)
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    assert {"input_layernorm.weight", "post_attention_layernorm.weight"} <= changed


def test_activations_that_are_no_numbers_are_an_error_that_names_the_linear(model: Adapter) -> None:
    def poisoned() -> list[Text]:
        made = read(model, 1)
        made[0].embeds[0, 3] = torch.nan
        return made

    walk = Walk(model, samples(model, 1), poisoned)
    method = Wanda(keep=Budget.parse("2:4"))
    with (
        torch.no_grad(),
        pytest.raises(ValueError, match=r"layers\.0\.self_attn\.q_proj: its calibration inputs hold NaN or infinity"),
    ):
        compressed(next(walk.stages(outline(model, "language"))), method, [0] * 7, "float32")


def test_a_block_without_linears_and_one_compressed_already_are_unsupported() -> None:
    with pytest.raises(Unsupported, match="norm has no linear layers of its own"):
        linears_of(nn.Sequential(nn.LayerNorm(3)), "norm")
    wrapped = nn.Sequential(nn.Linear(2, 2))
    wrapped[0].forward = lambda inputs: inputs  # type: ignore[method-assign]
    with pytest.raises(Unsupported, match=r"block\.0 is a Linear with a forward of its own: it is compressed already"):
        linears_of(wrapped, "block")


@settings(deadline=None, max_examples=40)
@given(st.lists(st.booleans(), min_size=2, max_size=50))
def test_balanced_visual_tokens_weigh_as_much_as_the_text(marks) -> None:
    visual = torch.tensor(marks)
    weights = token_weights(visual, "balanced")
    assert bool((weights > 0).sum() == len(marks)) or not bool((~visual).any())
    if bool(visual.any()) and bool((~visual).any()):
        assert float(weights[visual].sum()) == pytest.approx(float(weights[~visual].sum()), rel=1e-5)
        assert (weights[~visual] == 1).all()
    assert torch.equal(token_weights(visual, "text"), (~visual).float())
    assert torch.equal(token_weights(visual, "visual"), visual.float())


SIZES = st.lists(st.lists(st.integers(1, 400), min_size=1, max_size=4), min_size=1, max_size=8)


@settings(deadline=None, max_examples=80)
@given(SIZES, st.fractions(Fraction(1, 20), Fraction(19, 20), max_denominator=20), st.data())
def test_shares_of_blocks_sum_exactly_and_none_is_over_the_most(sizes, zeros, data) -> None:
    named = {str(number): block for number, block in enumerate(sizes)}
    found = {name: data.draw(st.floats(0, 1e6)) for name in named}
    most = min(Fraction(1), zeros + Fraction(1, 10))
    total = sum(map(sum, sizes))
    # of very few weights the rounded total may be more than all blocks may lose, which is refused
    assume(math.floor(zeros * total + Fraction(1, 2)) <= sum(math.floor(most * sum(block)) for block in sizes))
    lost = allocated(named, found, zeros, most)
    assert sum(map(sum, lost.values())) == math.floor(zeros * total + Fraction(1, 2))
    for name, block in named.items():
        assert sum(lost[name]) <= math.floor(most * sum(block))
        assert all(0 <= gone <= size for gone, size in zip(lost[name], block, strict=True))


@pytest.mark.parametrize(("most", "kept"), [("0.6", [55, 45]), ("0.9", [70, 30])])
def test_worked_examples_of_shares(most: str, kept: list[int]) -> None:
    lost = allocated({"a": [100], "b": [100]}, {"a": 3.0, "b": 1.0}, Fraction(1, 2), Fraction(most))
    assert [100 - sum(one) for one in lost.values()] == kept


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(0.01, 100), min_size=2, max_size=12), st.sampled_from(["0.20", "0.50"]))
def test_a_block_that_the_loss_feels_more_never_loses_more(found, share) -> None:
    named = {str(number): [64, 64] for number in range(len(found))}
    method = EcoFlap(keep=Budget.parse(f"sparsity{share}"))
    lost = method.zeros(named, {str(number): score for number, score in enumerate(found)})
    order = sorted(range(len(found)), key=lambda number: found[number])
    gone = [sum(lost[str(number)]) for number in order]
    assert all(one >= other - 1 for one, other in itertools.pairwise(gone))
    equal = method.zeros(named, dict.fromkeys(named, 1.0))
    assert len({sum(one) for one in equal.values()}) <= 2


@pytest.mark.parametrize("sizes", [[146] * 5, [7, 11, 13]])
def test_no_spread_leaves_all_blocks_the_same_share(sizes: list[int]) -> None:
    blocks = {str(number): [size] for number, size in enumerate(sizes)}
    scores = {name: float(number) for number, name in enumerate(blocks)}
    lost = allocated(blocks, scores, Fraction("0.333"), Fraction("0.333"))
    assert sum(map(sum, lost.values())) == (2 * 333 * sum(sizes) + 1000) // 2000
    assert all(abs(sum(lost[name]) - 0.333 * sum(block)) < 1 for name, block in blocks.items())


def test_blocks_that_the_loss_does_not_feel_share_alike_what_the_others_leave() -> None:
    lost = allocated(
        {name: [100] for name in "abcd"}, dict(zip("abcd", (0, 3, 0, 0), strict=True)), Fraction(1, 2), Fraction("0.9")
    )
    assert {name: sum(block) for name, block in lost.items()} == {"a": 66, "b": 0, "c": 67, "d": 67}


def test_a_score_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="the score nan of block a is none"):
        allocated({"a": [4]}, {"a": math.nan}, Fraction(1, 2), Fraction(1))


def test_noise_and_gradients_measure_what_a_linear_loss_says_and_leave_weights_alone() -> None:
    torch.manual_seed(0)
    small, large = nn.Linear(30, 20, bias=False), nn.Linear(30, 20, bias=False)
    slopes = {id(small): torch.randn(20, 30) * 0.1, id(large): torch.randn(20, 30)}
    before = [one.weight.detach().clone() for one in (small, large)]
    loss = lambda sample: sum((one.weight * slopes[id(one)]).sum() for one in (small, large))  # noqa: E731
    by = by_gradient({"a": [small], "b": [large]}, loss, 2)  # type: ignore[arg-type]
    for name, one in (("a", small), ("b", large)):
        size = float(slopes[id(one)].norm())
        assert by[name] == pytest.approx(size, rel=1e-4)
        noise = by_noise([one], loss, 200, 1e-2, name)  # type: ignore[arg-type]
        assert noise == pytest.approx(size * math.sqrt(2 / math.pi), rel=0.2)
    assert all(torch.equal(one.weight, was) for one, was in zip((small, large), before, strict=True))


def test_blocks_are_ordered_as_finite_differences_along_their_gradients_order_them(fresh: Adapter) -> None:
    shown = read(fresh, 2)
    groups = {name: list(linears_of(block, name).values()) for name, block in outline(fresh, "language").items()}
    before = {name: value.clone() for name, value in fresh.model.named_parameters()}
    found = scores(fresh, groups, shown, "gradient", 1e-3, 0)
    oracle = dict.fromkeys(groups, 0.0)
    for name, linears in groups.items():
        for linear in linears:
            for text in shown:
                linear.weight.requires_grad_(True)
                (slope,) = torch.autograd.grad(loss_of(fresh, text), [linear.weight])
                linear.weight.requires_grad_(False)
                step = slope / slope.norm() * 1e-2
                with torch.no_grad():
                    linear.weight += step
                    above = float(loss_of(fresh, text))
                    linear.weight -= 2 * step
                    below = float(loss_of(fresh, text))
                    linear.weight += step
                oracle[name] += (above - below) / 2e-2 / len(shown)
    assert sorted(found, key=found.__getitem__) == sorted(oracle, key=oracle.__getitem__)
    for name in groups:
        assert found[name] == pytest.approx(oracle[name], rel=0.05)
    with torch.no_grad():
        for name, value in fresh.model.named_parameters():
            value.copy_(before[name])
    noisy = scores(fresh, {name: linears[:2] for name, linears in groups.items()}, shown, "noise", 1e-3, 0)
    assert all(torch.equal(value, before[name]) for name, value in fresh.model.named_parameters())
    assert all(score > 0 for score in noisy.values())


def test_a_pattern_leaves_ecoflap_nothing_to_share_out() -> None:
    method = EcoFlap(keep=Budget.parse("2:4"))
    assert method.scoring == ""
    assert method.zeros({"a": [8], "b": [8]}, {}) == Wanda(keep=Budget.parse("2:4")).zeros({"a": [8], "b": [8]}, {})
    assert EcoFlap(keep=Budget.parse("sparsity0.50"), by="gradient").scoring == "gradient"


def test_every_family_is_walked_through(newer: Adapter) -> None:
    opened = open_model(resolve(f"twin={newer.source.source}"), Settings())
    shown = calibration.drawn(
        "micro", opened.source, 2, 0, opened.model_type != "llava" and opened.model_type != "smolvlm"
    ).samples
    walk, method = Walk(opened, shown, lambda: texts(opened, shown, "balanced")), Wanda(keep=Budget.parse("2:4"))
    with torch.no_grad():
        for stage in walk.stages(outline(opened, "tower+projector+language")):
            compressed(stage, method, [0] * len(stage.linears), "float32")
            assert all(((one.weight.unflatten(1, (-1, 4)) == 0).sum(2) == 2).all() for one in stage.linears.values())
            walk.leave(stage)
        for text, hidden in zip(walk.texts, walk.hidden, strict=True):
            first, others = entering(opened, text)
            for number, layer in enumerate(opened.layers):
                from effivlm.weights.texts import beside

                with beside(opened, text):
                    first = through(layer, first, others[number])
            assert torch.equal(first, hidden)
    opened.close()
