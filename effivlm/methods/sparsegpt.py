"""SparseGPT: what stays makes up for what goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from effivlm.compression.weights import Linear, Solved, WeightMethod
from effivlm.weights.engines import solved


@dataclass(frozen=True, kw_only=True)
class SparseGpt(WeightMethod):
    """Weights that are cheapest under the inverse Hessian become zero, and those to the right make up for them
    (arXiv 2301.00774).

    `damp` of the mean diagonal is added to the Hessian; a mask is chosen for `block` columns at a time.

    Differs from the paper:
    - the count in each block is rounded, where the released code removes one more;
    - an input that is always zero loses its weights first, and is left alone otherwise;
    - a Hessian that cannot be inverted is an error;
    - calibration samples are pictures with a question and its answer, not text;
    - preset balanced weighs tokens so that the visual ones of a sample together count as much as its text;
    - preset sparseml has sparseml 1.8.0 prune, which gives the same zeros but for ties in the last digit.
    """

    of: ClassVar[str] = "weights"
    kinds: ClassVar[Sequence[str]] = ("sparsity", "n:m")
    settings: ClassVar[Sequence[str]] = ("sparsity0.20", "sparsity0.50", "2:4")
    needs: ClassVar[str] = "hessian"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {},
        "balanced": {"tokens": "balanced"},
        "sparseml": {"engine": "sparseml"},
    }
    ENGINES: ClassVar[Sequence[str]] = ("llmcompressor", "sparseml")

    damp: float = 0.01
    block: int = 128

    def solve(self, linear: Linear) -> Solved:
        return solved(self.engine, "sparsegpt", linear, damp=self.damp, block=self.block)
