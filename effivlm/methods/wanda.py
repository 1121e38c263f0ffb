"""Wanda: weights times the size of their inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from effivlm.compression.weights import Linear, Solved, WeightMethod
from effivlm.weights.engines import solved


@dataclass(frozen=True, kw_only=True)
class Wanda(WeightMethod):
    """In each row the weights of the smallest |W| * ||x|| become zero, ||x|| over all calibration tokens (arXiv 2306.11695).

    Differs from the paper:
    - rows differ by at most one zero, so that the total is exact instead of rounded down in every row;
    - calibration samples are pictures with a question and its answer, not text;
    - preset balanced weighs tokens so that the visual ones of a sample together count as much as its text;
    - preset sparseml has sparseml 1.8.0 prune, which gives the same zeros.
    """

    of: ClassVar[str] = "weights"
    kinds: ClassVar[Sequence[str]] = ("sparsity", "n:m")
    settings: ClassVar[Sequence[str]] = ("sparsity0.20", "sparsity0.50", "2:4")
    needs: ClassVar[str] = "norms"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {},
        "balanced": {"tokens": "balanced"},
        "sparseml": {"engine": "sparseml"},
    }
    ENGINES: ClassVar[Sequence[str]] = ("llmcompressor", "sparseml")

    def solve(self, linear: Linear) -> Solved:
        return solved(self.engine, "wanda", linear)
