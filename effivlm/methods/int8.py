"""INT8: weights and activations of eight bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from effivlm.compression.weights import Linear, Solved, WeightMethod
from effivlm.weights.engines import solved


@dataclass(frozen=True, kw_only=True)
class Int8(WeightMethod):
    """Symmetric whole numbers: weights with a scale a row, activations with a scale a token (arXiv 2206.01861).

    Differs from the paper:
    - weights have a scale a row instead of one for a group of rows; nothing is distilled.
    """

    of: ClassVar[str] = "weight bits"
    kinds: ClassVar[Sequence[str]] = ("bits",)
    settings: ClassVar[Sequence[str]] = ("int8",)
    forms: ClassVar[Sequence[str]] = ("int8",)
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {}}

    def solve(self, linear: Linear) -> Solved:
        return solved(self.engine, "rtn", linear, symmetric=True)
