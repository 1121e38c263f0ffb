"""What a method of the seam `weights` is: it changes a checkpoint once, on disk, and every task then runs on that checkpoint.

Its budget is in the field's own words: `sparsity0.50` (half of all weights become zero), `2:4` (two zeros in each group of four
inputs), `w4g128` (weights of 4 bits, a scale for every 128 inputs), `w8` (one scale a row), `fp8` and `int8` (weights and
activations, activations scaled token by token).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, ClassVar

from torch import Tensor

from effivlm.compression.base import Method, Part
from effivlm.compression.budget import apportion
from effivlm.records import Budget

EIGHT = ("fp8", "int8")
TOKENS = ("all", "balanced", "text", "visual")
TARGETS = ("language", "tower", "projector")
COMPRESSED_TENSORS, AUTOAWQ = "compressed-tensors", "autoawq"


@dataclass(frozen=True, slots=True)
class Goal:
    """What is asked of the weights: a share of zeros, `pattern` (zeros, of how many), or a grid.

    `kind` is "none", "sparsity", "n:m" or "bits"; `group` 0 means one scale a row; `form` is that of a number: int, fp8 or int8
    (the last two with activations).
    """

    label: str
    kind: str
    zeros: Fraction = Fraction(0)
    pattern: tuple[int, int] = (0, 0)
    bits: int = 16
    group: int = 0
    form: str = "int"

    @classmethod
    def parse(cls, label: str) -> Goal:
        """Read a label; "1.00" asks for nothing.

        Raises:
            ValueError: it is in none of the forms.
        """
        budget = Budget.parse(label)
        if budget.whole:
            return cls(label, "none")
        if budget.kind == "sparsity":
            return cls(label, "sparsity", 1 - budget.keep)
        if budget.kind == "n:m":
            stay, of = budget.numbers
            return cls(label, "n:m", 1 - budget.keep, (of - stay, of))
        if budget.kind == "bits":
            form = label if label in EIGHT else "int"
            bits, group = (*budget.numbers, 0)[:2]
            return cls(label, "bits", bits=bits, group=group, form=form)
        raise ValueError(
            f"budget {label!r} is none of weights: it must be like sparsity0.50, 2:4, w4g128 (2 to 8 bits), w8, fp8 or int8"
        )


@dataclass(frozen=True, slots=True)
class Linear:
    """One linear layer to be compressed: its weight [out, in] in float32 and what its inputs were.

    goal: what is asked of it; zeros: how many of its weights are to become zero; norms [in]: sums of squares of every input over
    calibration tokens, weighted as the method says; hessian [in, in]: sums of products, where the method needs it; stored: the
    precision ("float16") of what is written.
    """

    name: str
    weight: Tensor
    goal: Goal
    zeros: int
    stored: str
    norms: Tensor | None = None
    hessian: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Grid:
    """Scales [out, groups] in the stored precision, zero points [out, groups] of the same shape (None: symmetric)."""

    bits: int
    group: int
    form: str
    scale: Tensor
    zero: Tensor | None


@dataclass(frozen=True, slots=True)
class Solved:
    """The new weight [out, in], as whoever loads it sees it; of a quantised one also its codes [out, in] on a grid."""

    weight: Tensor
    codes: Tensor | None = None
    grid: Grid | None = None


@dataclass(frozen=True, kw_only=True)
class WeightMethod(Method):
    """Changes weights of the checkpoint; `solve` is its mathematics for one linear layer.

    `kinds` are the kinds of budget that it takes, `settings` the budgets it runs at where none is named, `needs` what of a
    linear's inputs is gathered ("nothing", "norms", "hessian"). Fields: `engine` computes; `samples` of the set `calibration`
    ("auto": the one that belongs to the model) are looked at, their tokens weighted as `tokens` says (balanced: the visual tokens
    of a sample together weigh as much as its text); `targets`, joined by "+", are the parts of the model whose linears change;
    `sequential`: a linear sees inputs that those before it in the same block have changed already.
    """

    seam: ClassVar[str] = "weights"
    kinds: ClassVar[Sequence[str]] = ()
    settings: ClassVar[Sequence[str]] = ()
    needs: ClassVar[str] = "nothing"
    forms: ClassVar[Sequence[str]] = ("int",)
    ENGINES: ClassVar[Sequence[str]] = ("llmcompressor",)

    engine: str = "llmcompressor"
    calibration: str = "auto"
    samples: int = 128
    tokens: str = "all"
    targets: str = "language"
    sequential: bool = False
    goal: Goal = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        label = self.keep.label
        try:
            goal = Goal.parse(label)
        except ValueError:
            goal = Goal(label, "fraction")
        wanted = goal.kind in self.kinds and (goal.kind != "bits" or goal.form in self.forms)
        if not wanted and goal.kind != "none":
            name = type(self).__name__.lower()
            raise ValueError(f"budget {label!r} is none of {name}: it takes budgets such as {', '.join(self.settings)}")
        _among("tokens", self.tokens, TOKENS)
        _among("engine", self.engine, self.ENGINES)
        for target in self.targets.split("+"):
            _among("targets", target, TARGETS)
        if self.samples < 1:
            raise ValueError(f"samples {self.samples} must be 1 or more: the calibration set would be empty")
        object.__setattr__(self, "goal", goal)

    @property
    def packing(self) -> str:
        """The format of a quantised checkpoint."""
        return COMPRESSED_TENSORS

    def seam_parts(self) -> tuple[Part, ...]:
        """None: a run of samples meets the checkpoint that this method made, and nothing else of it."""
        return ()

    @abstractmethod
    def solve(self, linear: Linear) -> Solved:
        """The compressed weight of one linear layer.

        Raises:
            ValueError: its shape does not fit the goal, or its inputs tell nothing.
        """

    def zeros(self, sizes: Mapping[str, Sequence[int]], scores: Mapping[str, float]) -> dict[str, list[int]]:
        """How many weights become zero in each linear of each block, from their sizes; they sum to the share that is asked.

        `scores` are those of blocks, for a method whose `scoring` asks for them.
        """
        whole = [size for block in sizes.values() for size in block]
        total = (2 * self.goal.zeros.numerator * sum(whole) + self.goal.zeros.denominator) // (
            2 * self.goal.zeros.denominator
        )
        counts = iter(apportion(whole, total, high=whole)) if total else iter([0] * len(whole))
        return {name: [next(counts) for _ in block] for name, block in sizes.items()}

    @property
    def scoring(self) -> str:
        """How blocks are scored before any weight changes; "" where all get the same share."""
        return ""

    def prepare(self, block: Any) -> None:
        """Change a block's weights before its linears are solved, so that it computes the same; nothing here."""


def _among(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} {value!r} is not one of {', '.join(allowed)}")
