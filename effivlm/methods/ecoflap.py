"""EcoFLaP: blocks that the loss feels more keep more, then Wanda inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

from effivlm.compression.weights import Linear, Solved, WeightMethod
from effivlm.weights.allocation import allocated
from effivlm.weights.engines import solved


@dataclass(frozen=True, kw_only=True)
class EcoFlap(WeightMethod):
    """Each block's share of zeros comes from how the loss answers to noise on its weights, at one exact total; Wanda chooses
    inside (arXiv 2310.02998).

    A block's score is the sum over its linears of |L(W + eps z) - L(W - eps z)| / (2 eps), z standard normal, averaged over
    calibration samples; no block loses more than the asked share plus `spread`. Preset l2_norm takes the mean norm of each
    sample's gradient instead, which is what the difference tends to (times sqrt(2 / pi)) at a twentieth of the cost.

    Differs from the paper:
    - shares are found by water-filling, so that they sum to the total; the released code adds where it has to take away;
    - noise is drawn from a seed, and the weights are those of before, bit for bit, afterwards;
    - 2:4 leaves nothing to share out, and is Wanda;
    - calibration samples are pictures with a question and its answer.
    """

    of: ClassVar[str] = "weights"
    kinds: ClassVar[Sequence[str]] = ("sparsity", "n:m")
    settings: ClassVar[Sequence[str]] = ("sparsity0.20", "sparsity0.50", "2:4")
    needs: ClassVar[str] = "norms"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {},
        "balanced": {"tokens": "balanced"},
        "l2_norm": {"by": "gradient"},
    }

    by: str = "noise"
    epsilon: float = 1e-3
    spread: float = 0.1
    scored_samples: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.by not in ("noise", "gradient"):
            raise ValueError(f"by {self.by!r} is not one of noise, gradient")
        if not 0 <= self.spread <= 1:
            raise ValueError(f"spread {self.spread} must lie between 0 and 1")

    @property
    def scoring(self) -> str:
        return self.by if self.goal.kind == "sparsity" else ""

    def zeros(self, sizes: Mapping[str, Sequence[int]], scores: Mapping[str, float]) -> dict[str, list[int]]:
        if not self.scoring:
            return super().zeros(sizes, scores)
        most = min(Fraction(1), self.goal.zeros + Fraction(str(self.spread)))
        return allocated(sizes, scores, self.goal.zeros, most)

    def solve(self, linear: Linear) -> Solved:
        return solved(self.engine, "wanda", linear)
