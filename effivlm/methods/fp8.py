"""FP8: weights and activations of eight bits with an exponent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from effivlm.compression.weights import Linear, Solved, WeightMethod
from effivlm.weights.engines import solved


@dataclass(frozen=True, kw_only=True)
class Fp8(WeightMethod):
    """Weights in E4M3 with a scale a row, activations in E4M3 with a scale a token (arXiv 2209.05433).

    Differs from the paper:
    - scales are those of rows and tokens instead of whole tensors, and no activation is calibrated.
    """

    of: ClassVar[str] = "weight bits"
    kinds: ClassVar[Sequence[str]] = ("bits",)
    settings: ClassVar[Sequence[str]] = ("fp8",)
    forms: ClassVar[Sequence[str]] = ("fp8",)
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {}}

    def solve(self, linear: Linear) -> Solved:
        return solved(self.engine, "rtn", linear, symmetric=True)
