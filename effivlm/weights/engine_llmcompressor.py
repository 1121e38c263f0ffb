"""llm-compressor's functions, one linear layer at a time; magnitude and rounding, which it has no function for, are written out,
and so is Wanda's pattern, in which it leaves equal ones to `topk`, whose choice differs between devices.

Its Wanda rounds the number of zeros down in every row, its SparseGPT removes one more in every block: both are asked for so
that totals are exact. What it answers with a warning and another method, an inverse that does not exist, is an error here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from effivlm.compression.weights import Linear, Solved
from effivlm.models._torchvision import ensure_torchvision
from effivlm.weights.grids import codes_of, grid_of, rounded, weight_of
from effivlm.weights.smoothing import smooth as smooth

DEAD = 1e-6
"""Share of the mean diagonal that stands for an input that was always zero, so that its weights disturb no other."""
FAINT = 1e-12
"""What such weights are multiplied by while a mask is chosen, so that they go first."""


def magnitude(linear: Linear) -> Solved:
    """The smallest weights become zero, among equal ones those that come first."""
    size, (zeros, of) = linear.weight.abs(), _pattern(linear)
    if of:
        return Solved(_thinned(linear.weight, size, zeros, of))
    new = linear.weight.clone()
    new.view(-1)[size.flatten().argsort(stable=True)[: linear.zeros]] = 0
    return Solved(new)


def wanda(linear: Linear) -> Solved:
    """Rows lose numbers of weights that differ by one at most; of equal ones those that come first."""
    norms, (zeros, of) = _there(linear, "norms"), _pattern(linear)
    if of:
        return Solved(_thinned(linear.weight, linear.weight.abs() * norms.sqrt(), zeros, of))
    sparsify = _function("pruning.wanda.wanda_sparsify", "sparsify_weight")
    rows, columns = linear.weight.shape
    new = linear.weight.clone()
    ends = torch.arange(rows + 1) * linear.zeros // rows
    counts = ends.diff().to(new.device)
    for count in counts.unique().tolist():
        chosen = counts == count
        new[chosen] = _called(sparsify, linear.weight[chosen], norms, (count + 0.5) / columns, 0, 0)
    return Solved(new)


def sparsegpt(linear: Linear, damp: float, block: int) -> Solved:
    """Each block of columns loses its rounded share; what stays makes up for it."""
    module = _module("pruning.sparsegpt.sgpt_sparsify")
    zeros, of = _pattern(linear)
    if not zeros and not linear.zeros:
        return Solved(linear.weight.clone())
    rows, columns = linear.weight.shape
    share = linear.zeros / linear.weight.numel() - 0.5 / (rows * min(block, columns))
    how = {"block_size": whole_groups(block, of), "dampening_frac": damp, "preserve_sparsity_mask": False}
    dead = _there(linear, "hessian").diagonal() == 0
    weight = torch.where(dead, linear.weight * FAINT, linear.weight)
    with _strict(module, linear.name):
        _, new = _called(module.sparsify_weight, weight, _inverted(linear), max(0.0, share), zeros, of, **how)
    return Solved(torch.where(dead & (new != 0), linear.weight, new))


def rtn(linear: Linear, symmetric: bool) -> Solved:
    """Every weight at the nearest point of its grid."""
    return rounded(linear.weight, grid_of(linear.weight, linear.goal, symmetric, linear.stored))


def gptq(linear: Linear, damp: float, block: int, symmetric: bool) -> Solved:
    """Columns are rounded left to right on a grid set beforehand, and those behind make up for the errors."""
    quantize = _function("gptq.gptq_quantize", "quantize_weight")
    from compressed_tensors.quantization import QuantizationArgs

    grid = grid_of(linear.weight, linear.goal, symmetric, linear.stored)
    one = grid.group == linear.weight.shape[1]
    how: dict[str, Any] = {"strategy": "channel"} if one else {"strategy": "group", "group_size": grid.group}
    args = QuantizationArgs(num_bits=grid.bits, type="int", symmetric=symmetric, actorder=None, **how)
    scale = grid.scale.float()
    zero = torch.zeros_like(scale) if grid.zero is None else grid.zero.float()
    new, _, gave_up = quantize(
        linear.weight[None].clone(),
        _inverted(linear)[None],
        scale[None],
        zero[None],
        None,
        args,
        blocksize=block,
        percdamp=damp,
    )
    if bool(gave_up.any()):
        raise ValueError(_singular(linear.name))
    codes = codes_of(new[0], grid)
    return Solved(weight_of(codes, grid), codes, grid)


def whole_groups(block: int, of: int) -> int:
    """So many columns or somewhat fewer that blocks hold whole groups of a pattern: SparseGPT chooses inside a block."""
    return max(block // of, 1) * of if of else block


def _thinned(weight: Tensor, size: Tensor, zeros: int, of: int) -> Tensor:
    """A copy in which those `zeros` weights of each group of `of` inputs are zero whose `size` is smallest."""
    gone = size.unflatten(1, (-1, of)).argsort(dim=2, stable=True)[..., :zeros]
    new = weight.clone(memory_format=torch.contiguous_format)
    new.unflatten(1, (-1, of)).scatter_(2, gone, 0)
    return new


def _pattern(linear: Linear) -> tuple[int, int]:
    """Zeros in each group of so many inputs; (0, 0) where none is asked for."""
    zeros, of = linear.goal.pattern
    if of and linear.weight.shape[1] % of:
        raise ValueError(f"{linear.name}: {linear.weight.shape[1]} inputs do not split into groups of {of}")
    return zeros, of


def _there(linear: Linear, name: str) -> Tensor:
    found: Tensor | None = getattr(linear, name)
    if found is None:
        raise ValueError(f"{linear.name}: no {name} of its inputs were gathered")
    return found


def _inverted(linear: Linear) -> Tensor:
    """A copy of the sums of products [in, in] in which every input has been seen."""
    hessian = _there(linear, "hessian").clone()
    diagonal = hessian.diagonal()
    diagonal[diagonal == 0] = DEAD * diagonal.mean()
    return hessian


def _called(function: Any, weight: Tensor, statistics: Tensor, *given: Any, **how: Any) -> Any:
    """Call a function that takes a module and a dictionary of statistics by module, which it empties."""
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    module.weight = nn.Parameter(weight, requires_grad=False)
    return function(module, {module: statistics}, *given, **how)


def _singular(name: str) -> str:
    return f"{name}: its inputs leave a Hessian that cannot be inverted: take more samples, or a larger damp"


@contextmanager
def _strict(module: Any, name: str) -> Iterator[None]:
    """Inside, a warning of llm-compressor's is an error: it goes on with an identity matrix instead of the Hessian."""

    class Refusing:
        @staticmethod
        def warning(message: str) -> None:
            raise ValueError(_singular(name))

    with patch.object(module, "logger", Refusing):
        yield


def _module(name: str) -> Any:
    import importlib

    ensure_torchvision()
    try:
        return importlib.import_module(f"llmcompressor.modifiers.{name}")
    except ModuleNotFoundError as error:
        raise ValueError(f"engine llmcompressor needs {error.name}: pip install effivlm[weights]") from error


def _function(module: str, name: str) -> Any:
    return getattr(_module(module), name)
