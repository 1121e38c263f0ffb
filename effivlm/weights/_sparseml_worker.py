"""The other side of `_sparseml.py`: prunes weights with sparseml's own SparseGPT and Wanda wrappers.

It runs under the Python of sparseml's environment, so it imports nothing of effivlm. It first says in a line of JSON what is
here, then answers every request on standard input with one on standard output. It ends when standard input does, so that it
never outlives who started it.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from sparseml.modifiers.obcq.utils.sgpt_wrapper import SparseGptWrapper
from sparseml.modifiers.pruning.wanda.utils.wanda_wrapper import WandaWrapper
from torch import Tensor, nn


def sparsegpt(tensors: dict[str, Tensor], asked: dict[str, Any]) -> Tensor:
    """A weight [out, in] pruned over the Hessian [in, in] of its inputs, or over inputs [tokens, in]."""
    wrapper = SparseGptWrapper("weight", _linear(tensors["weight"]))
    if "inputs" in tensors:
        wrapper.add_batch(tensors["inputs"], None)
    else:
        wrapper.H = tensors["hessian"]
    wrapper.fasterprune(
        asked["sparsity"], asked["zeros"], asked["group"], blocksize=asked["block"], percdamp=asked["damp"]
    )
    return _pruned(wrapper)


def wanda(tensors: dict[str, Tensor], asked: dict[str, Any]) -> Tensor:
    """A weight [out, in] pruned over the squares [in] of its inputs, or over inputs [tokens, in].

    The wrapper takes a share and rounds the zeros of a row down; so rows that are to lose equally many, as `counts` [out] says,
    go together.
    """
    weight = tensors["weight"]
    if asked["group"]:
        return _wanda(weight, tensors, 0.0, asked["zeros"], asked["group"])
    counts, pruned = tensors["counts"], torch.empty_like(weight)
    for count in counts.unique().tolist():
        rows = counts == count
        # half a weight more than asked: a share times a length could fall under the whole number
        pruned[rows] = _wanda(weight[rows], tensors, (count + 0.5) / weight.shape[1], 0, 0)
    return pruned


def _wanda(weight: Tensor, tensors: dict[str, Tensor], sparsity: float, zeros: int, group: int) -> Tensor:
    wrapper = WandaWrapper("weight", _linear(weight))
    if "inputs" in tensors:
        wrapper.add_batch(tensors["inputs"], None)
    else:
        wrapper.scaler_row = tensors["squares"]
    wrapper.fasterprune(sparsity, zeros, group)
    return _pruned(wrapper)


def _linear(weight: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    linear.weight = nn.Parameter(weight.clone(), requires_grad=False)
    return linear


def _pruned(wrapper: Any) -> Tensor:
    wrapper.free()
    pruned: Tensor = wrapper.layer.weight.data
    return pruned


METHODS = {"sparsegpt": sparsegpt, "wanda": wanda}


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Do what one request asks; the answer says that its file is there, or what went wrong."""
    try:
        with torch.no_grad():
            tensors = load_file(request["tensors"], device=request["device"])
            pruned = METHODS[request["method"]](tensors, request)
        save_file({"weight": pruned.cpu().contiguous()}, request["result"])
    except Exception as error:  # of whatever kind, it belongs to this request and is told to who made it
        return {"number": request["number"], "error": f"{type(error).__name__}: {error}"}
    return {"number": request["number"]}


def main() -> None:
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print must not stand between the answers
    import sparseml

    here = {"sparseml": sparseml.__version__, "torch": torch.__version__, "cuda": torch.cuda.is_available()}
    print(json.dumps(here), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
