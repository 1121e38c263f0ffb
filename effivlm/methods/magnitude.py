"""Magnitude: the smallest weights of a layer become zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from effivlm.compression.weights import Linear, Solved, WeightMethod
from effivlm.weights.engines import solved


@dataclass(frozen=True, kw_only=True)
class Magnitude(WeightMethod):
    """The smallest weights of each linear layer become zero, whatever its inputs are (the floor of SparseGPT, arXiv 2301.00774).

    Differs from the paper: nothing known; the total is exact.
    """

    of: ClassVar[str] = "weights"
    kinds: ClassVar[Sequence[str]] = ("sparsity", "n:m")
    settings: ClassVar[Sequence[str]] = ("sparsity0.20", "sparsity0.50", "2:4")
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {}}

    def solve(self, linear: Linear) -> Solved:
        return solved(self.engine, "magnitude", linear)
