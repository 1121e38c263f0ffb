"""AWQ: inputs that are large get finer weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from effivlm.compression.weights import AUTOAWQ, Linear, Solved, WeightMethod
from effivlm.weights.engines import rule_of, solved
from effivlm.weights.smoothing import Block


@dataclass(frozen=True, kw_only=True)
class Awq(WeightMethod):
    """Input channels are scaled up by a power of their mean size before weights are rounded, and what feeds them is scaled down
    (arXiv 2306.00978).

    Of `points` powers the one is taken under which rounding changes the outputs of the linears behind that input least.

    Differs from the paper:
    - not scaling at all is always among the candidates, so that no block is worse than rounding by its own measure;
    - the authors' code looks at what the whole attention or MLP gives out; here it is the outputs of its linears, all together;
    - weights are not clipped;
    - preset autoawq is AutoAWQ 0.2.9: it clips, its scales also depend on the weights, and its grid need not hold zero;
    - calibration samples are pictures with a question and its answer, not text;
    - preset balanced weighs tokens so that the visual ones of a sample together count as much as its text.
    """

    of: ClassVar[str] = "weight bits"
    kinds: ClassVar[Sequence[str]] = ("bits",)
    settings: ClassVar[Sequence[str]] = ("w4g128",)
    needs: ClassVar[str] = "hessian"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {},
        "balanced": {"tokens": "balanced"},
        "autoawq": {"engine": "autoawq"},
    }
    ENGINES: ClassVar[Sequence[str]] = ("llmcompressor", "autoawq")

    points: int = 20
    symmetric: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.engine == "autoawq" and (self.points, self.tokens) != (20, "all"):
            raise ValueError(
                f"engine autoawq tries 20 points over all tokens, not {self.points} over {self.tokens} tokens"
            )

    @property
    def packing(self) -> str:
        """AutoAWQ's own where that has a place for it, which is 4 bits in groups with zero points."""
        own = self.engine == "autoawq" and self.goal.bits == 4 and self.goal.group and not self.symmetric
        return AUTOAWQ if own else super().packing

    def prepare(self, block: Block) -> None:
        rule_of(self.engine, "smooth")(block, self.goal, self.points, self.symmetric)

    def solve(self, linear: Linear) -> Solved:
        return solved(self.engine, "rtn", linear, symmetric=self.symmetric)
