"""GPTQ: columns not yet rounded make up for those that are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from effivlm.compression.weights import Linear, Solved, WeightMethod
from effivlm.weights.engines import solved


@dataclass(frozen=True, kw_only=True)
class Gptq(WeightMethod):
    """Columns are rounded one after another, and those to the right make up for each error (arXiv 2210.17323).

    `damp` of the mean diagonal is added to the Hessian; blocks of `block` columns change nothing but time.

    Differs from the paper:
    - grids are set from the weights as they were before the first column;
    - a Hessian that cannot be inverted is an error;
    - calibration samples are pictures with a question and its answer, not text;
    - preset balanced weighs tokens so that the visual ones of a sample together count as much as its text.
    """

    of: ClassVar[str] = "weight bits"
    kinds: ClassVar[Sequence[str]] = ("bits",)
    settings: ClassVar[Sequence[str]] = ("w4g128",)
    needs: ClassVar[str] = "hessian"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {}, "balanced": {"tokens": "balanced"}}

    damp: float = 0.01
    block: int = 128
    symmetric: bool = False
    sequential: bool = True

    def solve(self, linear: Linear) -> Solved:
        return solved(self.engine, "gptq", linear, damp=self.damp, block=self.block, symmetric=self.symmetric)
