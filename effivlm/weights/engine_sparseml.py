"""SparseGPT and Wanda by sparseml 1.8.0, in its own process.

What it is given does not grow with the calibration tokens: squares [in] for Wanda, the Hessian [in, in] for SparseGPT (1.4 GB for
the widest linear of a 7B model).
"""

from __future__ import annotations

import torch
from torch import Tensor

from effivlm.compression.weights import Linear, Solved
from effivlm.weights._sparseml import running
from effivlm.weights.engine_llmcompressor import DEAD, FAINT, whole_groups


def wanda(linear: Linear) -> Solved:
    """The weights of the smallest |W| * ||x|| of each row become zero; rows differ by at most one zero.

    Raises:
        ValueError: the inputs were not looked at, do not fit or hold NaN, or the environment is not there.
        ChildProcessError, TimeoutError: the worker failed.
    """
    rows, columns = linear.weight.shape
    tensors = {"weight": _finite(linear, linear.weight), "squares": _seen(linear, linear.norms, (columns,))}
    if not linear.goal.pattern[1]:
        tensors["counts"] = (torch.arange(rows + 1) * linear.zeros // rows).diff()
    return Solved(running().ask("wanda", tensors, **_pattern(linear)))


def sparsegpt(linear: Linear, damp: float, block: int) -> Solved:
    """Blocks of columns are pruned one after another, and those to the right make up for each.

    The wrapper takes one share for all blocks, so the zeros are those asked for within half a weight a block.
    An input that was always zero loses its weights first, as with the default engine; the wrapper would drop them all.

    Raises as `wanda`; ValueError also for a Hessian that cannot be inverted.
    """
    if not linear.zeros:
        return Solved(linear.weight.clone())
    columns = linear.weight.shape[1]
    hessian = _seen(linear, linear.hessian, (columns, columns)).clone()
    diagonal = hessian.diagonal()
    dead = diagonal == 0
    diagonal[dead] = DEAD * diagonal.mean()
    weight = _finite(linear, linear.weight)
    pattern = _pattern(linear)
    block = whole_groups(block, pattern["group"])
    settings = {**pattern, "sparsity": _share(linear, block), "damp": damp, "block": block}
    tensors = {"weight": torch.where(dead, weight * FAINT, weight), "hessian": hessian}
    new = running().ask("sparsegpt", tensors, **settings)
    return Solved(torch.where(dead & (new != 0), weight, new))


def _share(linear: Linear, block: int) -> float:
    """Half a weight a block less than is asked for: of each block sparseml removes floor(share * size) + 1."""
    rows, columns = linear.weight.shape
    return max(0.0, linear.zeros / linear.weight.numel() - 0.5 / (rows * min(block, columns)))


def _pattern(linear: Linear) -> dict[str, int]:
    zeros, group = linear.goal.pattern
    if group and linear.weight.shape[1] % group:
        raise ValueError(f"{linear.name}: {linear.weight.shape[1]} inputs do not split into groups of {group}")
    return {"zeros": zeros, "group": group}


def _seen(linear: Linear, tensor: Tensor | None, shape: tuple[int, ...]) -> Tensor:
    """What calibration left of the inputs, of the shape that the weight asks for."""
    if tensor is None or tensor.shape != shape:
        found = "nothing" if tensor is None else f"{list(tensor.shape)}"
        raise ValueError(f"{linear.name}: sparseml needs {list(shape)} of its inputs, and was given {found}")
    return _finite(linear, tensor)


def _finite(linear: Linear, tensor: Tensor) -> Tensor:
    if not bool(tensor.isfinite().all()):
        raise ValueError(f"{linear.name}: its weight or its inputs hold NaN or infinite values")
    return tensor.float()
