"""sparseml beside llm-compressor: Wanda's zeros are the same, SparseGPT's in 9,999 of 10,000 places."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from effivlm.compression.weights import Goal, Linear, Solved
from effivlm.weights._sparseml import running
from effivlm.weights.engines import solved

pytestmark = pytest.mark.sparseml
SHAPES = ((7, 36), (48, 100), (131, 260), (24, 388), (1, 4))
GOALS = ("sparsity0.20", "sparsity0.50", "sparsity0.73", "2:4", "1:4")
HOW = {"damp": 0.01, "block": 128}


def linear(shape: tuple[int, int], goal: str, seed: int = 0, dead: int = 0) -> Linear:
    """A layer whose inputs differ much in size; the first `dead` of them are always zero."""
    torch.manual_seed(seed)
    rows, columns = shape
    inputs = torch.randn(3 * columns, columns) @ (torch.randn(columns, columns) / columns**0.5 + torch.eye(columns))
    inputs = inputs * (torch.randn(columns) * 1.5).exp()
    inputs[:, :dead] = 0
    asked = Goal.parse(goal)
    zeros = round(asked.zeros * rows * columns)
    squares, products = inputs.square().sum(0), inputs.T @ inputs
    return Linear("layer", torch.randn(shape), asked, zeros, "float32", squares, products)


def both(rule: str, one: Linear, **how: float) -> tuple[Solved, Solved]:
    return solved("llmcompressor", rule, one, **how), solved("sparseml", rule, one, **how)


def error(one: Linear, weight: Tensor) -> float:
    """How far outputs over the calibration inputs are changed, squared."""
    assert one.hessian is not None
    change = weight - one.weight
    return float(((change @ one.hessian) * change).sum())


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dead", [0, 3])
def test_wanda_is_the_default_engines_to_the_bit(shape: tuple[int, int], goal: str, dead: int) -> None:
    """But for weights behind dead inputs, which all score 0: which of them go first is nowhere defined."""
    one = linear(shape, goal, dead=dead)
    assert one.hessian is not None
    default, other = both("wanda", one)
    alive = one.hessian.diagonal() > 0
    assert torch.equal(default.weight[:, alive], other.weight[:, alive])
    assert int((other.weight == 0).sum()) == int((default.weight == 0).sum()) == one.zeros
    assert dead or torch.equal(default.weight, other.weight)


@pytest.mark.parametrize("goal", GOALS)
def test_sparsegpt_zeroes_what_the_default_engine_does(goal: str) -> None:
    equal, total = 0, 0
    for seed, shape in enumerate(SHAPES):
        for dead in (0, 3):
            one = linear(shape, goal, seed, dead)
            default, other = both("sparsegpt", one, **HOW)
            equal += int(((default.weight == 0) == (other.weight == 0)).sum())
            total += one.weight.numel()
            blocks = -(-shape[1] // HOW["block"])
            assert abs(int((other.weight == 0).sum()) - one.zeros) <= blocks
            assert error(one, other.weight) <= 1.001 * error(one, default.weight) + 1e-6
    assert equal / total >= 0.9999


def test_sparsegpt_changes_outputs_less_than_magnitude_and_makes_up_where_wanda_leaves_alone() -> None:
    one = linear((48, 100), "sparsity0.50")
    wanda, sparsegpt = solved("sparseml", "wanda", one).weight, solved("sparseml", "sparsegpt", one, **HOW).weight
    assert error(one, sparsegpt) < 0.5 * error(one, solved("llmcompressor", "magnitude", one).weight)
    assert torch.equal(wanda[wanda != 0], one.weight[wanda != 0])
    assert not torch.equal(sparsegpt[sparsegpt != 0], one.weight[sparsegpt != 0])


def test_the_statistics_that_are_sent_are_those_of_the_inputs() -> None:
    torch.manual_seed(3)
    inputs, weight = torch.randn(200, 36) * torch.rand(36), torch.randn(12, 36)
    share = {"zeros": 0, "group": 0, "sparsity": 0.5 - 0.5 / weight.numel(), **HOW}
    counts = torch.full((12,), 18)
    seen = {"squares": inputs.square().sum(0), "counts": counts}
    ask = running().ask
    given = ask("wanda", {"weight": weight, "inputs": inputs, "counts": counts}, **share)
    assert torch.equal(given, ask("wanda", {"weight": weight, **seen}, **share))
    given = ask("sparsegpt", {"weight": weight, "inputs": inputs}, **share)
    assert torch.allclose(given, ask("sparsegpt", {"weight": weight, "hessian": inputs.T @ inputs}, **share), atol=1e-4)


def test_what_cannot_be_pruned_is_refused_and_the_worker_goes_on() -> None:
    one = linear((8, 20), "sparsity0.50")
    worker, weight, norms = running(), one.weight, one.norms
    wrong = (
        ("wanda", {"norms": None}, "needs .20. of its inputs, and was given nothing"),
        ("wanda", {"norms": torch.ones(19)}, "was given .19."),
        ("wanda", {"weight": weight * float("nan")}, "NaN"),
        ("wanda", {"norms": torch.full((20,), float("inf"))}, "NaN or infinite"),
        ("wanda", {"weight": weight[:, :18], "norms": torch.ones(18), "goal": Goal.parse("2:4")}, "18 inputs"),
        ("sparsegpt", {"hessian": None}, "needs .20, 20."),
        ("sparsegpt", {"hessian": -torch.eye(20)}, "cannot prune a weight .8, 20.: .*positive-definite"),
    )
    for rule, changed, told in wrong:
        fields = {
            name: getattr(one, name) for name in ("name", "weight", "goal", "zeros", "stored", "norms", "hessian")
        }
        with pytest.raises(ValueError, match=told):
            solved("sparseml", rule, Linear(**{**fields, **changed}), **(HOW if rule == "sparsegpt" else {}))
    assert running() is worker
    assert norms is not None
    assert solved("sparseml", "wanda", one).weight.shape == (8, 20)


def test_the_versions_of_the_environment_are_the_pinned_ones() -> None:
    assert running().here["sparseml"] == "1.8.0"
    assert str(running().here["torch"]).split("+")[0] == torch.__version__.split("+")[0]
