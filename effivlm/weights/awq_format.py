"""AutoAWQ's format of a checkpoint, version gemm: 4 bits with zero points and scales in half precision, packed along outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from effivlm.compression.weights import Grid
from effivlm.decoding.weights import packed

PLACES = (0, 2, 4, 6, 1, 3, 5, 7)
"""Which of eight outputs in a row each four bits of a word hold, lowest first."""
HALF = 8  # our codes are signed, AutoAWQ's begin at 0


def tensors_of(codes: Tensor, grid: Grid) -> dict[str, Tensor]:
    """The tensors of a layer by their last names: qweight [in, out / 8], qzeros [groups, out / 8], scales [groups, out].

    Raises:
        ValueError: the format has no place for such codes.
    """
    if grid.bits != 4 or grid.form != "int" or grid.zero is None or len(codes) % 8:
        raise ValueError(
            f"AutoAWQ's format holds 4 bits with zero points of a multiple of 8 outputs, not {grid.bits} bits of {len(codes)}"
        )
    return {
        "qweight": _words(codes),
        "qzeros": _words(grid.zero),
        "scales": grid.scale.T.to(torch.float16).contiguous(),
    }


def configuration(groups: Sequence[int], ignored: Sequence[str]) -> dict[str, Any]:
    """What config.json says; `groups` are the inputs a scale of every layer, `ignored` names linears that are as they were.

    Raises:
        ValueError: layers differ in their groups, of which the format knows one.
    """
    if len(set(groups)) != 1:
        raise ValueError(f"AutoAWQ's format holds one group for all layers, not {sorted(set(groups))}")
    return {
        "quant_method": "awq",
        "version": "gemm",
        "bits": 4,
        "group_size": groups[0] or -1,
        "zero_point": True,
        "modules_to_not_convert": list(ignored),
    }


def _words(values: Tensor) -> Tensor:
    """Signed values [out, R] in words [R, out / 8]."""
    eights = (values.T.to(torch.int64) + HALF).unflatten(1, (-1, 8))
    return packed(eights[..., list(PLACES)].flatten(1), 4).contiguous()
