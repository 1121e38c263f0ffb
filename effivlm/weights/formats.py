"""What a compressed linear layer is in a file: a plain weight with zeros, or codes and scales in one of two formats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from effivlm.compression.weights import AUTOAWQ, Goal, Solved
from effivlm.weights import awq_format


def tensors_of(solved: Solved, stored: str, packing: str) -> dict[str, Tensor]:
    """The tensors of a layer by their last names; `packing` is the format of one that is quantised."""
    if solved.codes is None or solved.grid is None:
        return {"weight": solved.weight.to(getattr(torch, stored))}
    grid = solved.grid
    if packing == AUTOAWQ:
        return awq_format.tensors_of(solved.codes, grid)
    if grid.form != "int":
        return {"weight": solved.codes, "weight_scale": grid.scale}
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32

    found = {
        "weight_packed": pack_to_int32(solved.codes, grid.bits),
        "weight_scale": grid.scale,
        "weight_shape": torch.tensor(solved.codes.shape),
    }
    if grid.zero is not None:
        found["weight_zero_point"] = pack_to_int32(grid.zero, grid.bits, packed_dim=0)
    return found


def facts_of(solved: Solved, tensors: dict[str, Tensor]) -> dict[str, int]:
    """What was achieved, counted on what is stored: weights, zeros among them, and bits."""
    zeros = int((tensors["weight"] == 0).sum()) if solved.codes is None else int((solved.weight == 0).sum())
    return {"weights": solved.weight.numel(), "zeros": zeros, "bits": 8 * sum(one.nbytes for one in tensors.values())}


def configuration(
    goal: Goal, grids: Sequence[tuple[str, int, bool]], ignored: Sequence[str], packing: str
) -> dict[str, Any]:
    """What config.json says of a quantised checkpoint, as compressed-tensors (or AutoAWQ) reads it.

    `grids`: of each layer its name, inputs a scale (0: a row) and whether its grid is symmetric; `ignored`: names of linears that
    are as they were.
    """
    if packing == AUTOAWQ:
        return awq_format.configuration([group for _, group, _ in grids], ignored)
    from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig, QuantizationScheme

    groups: dict[tuple[int, bool], list[str]] = {}
    for name, group, symmetric in grids:
        groups.setdefault((group, symmetric), []).append(name)
    plain = goal.form == "int"
    form = {"int": "pack-quantized", "fp8": "float-quantized", "int8": "int-quantized"}[goal.form]
    kind: Any = "float" if goal.form == "fp8" else "int"
    schemes = {}
    for number, ((group, symmetric), names) in enumerate(groups.items()):
        how: dict[str, Any] = {"strategy": "group", "group_size": group} if group else {"strategy": "channel"}
        weights = QuantizationArgs(num_bits=goal.bits, type=kind, symmetric=symmetric, actorder=None, **how)
        inputs = (
            None if plain else QuantizationArgs(num_bits=8, type=kind, symmetric=True, strategy="token", dynamic=True)
        )
        # one scheme needs no list of names; several are told apart by them
        targets = ["Linear"] if len(groups) == 1 else names
        schemes[f"group_{number}"] = QuantizationScheme(
            targets=targets, weights=weights, input_activations=inputs, format=form
        )
    found: dict[str, Any] = QuantizationConfig(
        config_groups=schemes, format=form, quantization_status="compressed", ignore=list(ignored)
    ).model_dump(mode="json")
    return found
