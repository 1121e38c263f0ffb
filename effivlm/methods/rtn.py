"""RTN: every weight goes to the nearest point of its grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from effivlm.compression.weights import Linear, Solved, WeightMethod
from effivlm.weights.engines import solved


@dataclass(frozen=True, kw_only=True)
class Rtn(WeightMethod):
    """Weights are rounded to the nearest point of a grid a group (the floor of GPTQ, arXiv 2210.17323).

    Differs from the paper:
    - a grid always holds zero.
    """

    of: ClassVar[str] = "weight bits"
    kinds: ClassVar[Sequence[str]] = ("bits",)
    settings: ClassVar[Sequence[str]] = ("w4g128",)
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {}}

    symmetric: bool = False

    def solve(self, linear: Linear) -> Solved:
        return solved(self.engine, "rtn", linear, symmetric=self.symmetric)
