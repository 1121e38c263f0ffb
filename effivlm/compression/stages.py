"""What methods that prune on entry to several decoder layers have in common: where, how many, and what text rates."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from effivlm.compression.base import LayerPart, LayerView
from effivlm.records import Unsupported

HALVINGS = 100


@dataclass(frozen=True, kw_only=True)
class StagedPart(LayerPart):
    """A layer part whose counts follow one level in [0, 1]: 0 drops everything, 1 keeps everything after every stage.

    `budget_scope` "average": keep is the mean over all decoder layers, those before the first stage included; any other
    word of `scopes`: keep is what stays after the last stage.
    """

    scopes: ClassVar[tuple[str, ...]] = ("average", "final")

    budget_scope: str = "average"

    def __post_init__(self) -> None:
        if self.budget_scope not in self.scopes:
            raise ValueError(f"budget_scope {self.budget_scope!r} is not one of {', '.join(self.scopes)}")

    @property
    def layer_mean(self) -> bool:
        return self.budget_scope == "average"

    @abstractmethod
    def shares(self, level: float) -> Sequence[float]:
        """The share of all visual tokens that stays after each stage; not increasing, growing with the level from 0 to 1."""

    def budgets(self, visual: int, depth: int) -> tuple[int, ...]:
        stages = self.stages(depth)
        if not self.layer_mean:
            last = self.keep.of(visual)
            level = _level(lambda level: self.shares(level)[-1], last / visual)
            return (*(max(last, _half_up(share * visual)) for share in self.shares(level)[:-1]), last)
        spans = [after - at for at, after in pairwise((*stages, depth))]
        least = Fraction(stages[0] * visual + depth - stages[0], depth)
        if least > self.keep.exact(visual) + Fraction(1, 2):
            raise Unsupported(
                f"keep {self.keep.label} of {visual} visual tokens cannot be the mean over {depth} layers: the first"
                f" {stages[0]} see all of them, so at least {float(least / visual):.3f} stay"
            )

        def mean(level: float) -> float:
            after = (max(1.0, share * visual) for share in self.shares(level))
            return (stages[0] * visual + sum(span * count for span, count in zip(spans, after, strict=True))) / depth

        level = _level(mean, float(self.keep.exact(visual)))
        return tuple(max(1, _half_up(share * visual)) for share in self.shares(level))


def _level(measure: Callable[[float], float], target: float) -> float:
    """Where a growing function of [0, 1] reaches `target`."""
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if measure(middle) < target else (low, middle)
    return high


def _half_up(value: float) -> int:
    return math.floor(value + 0.5)


def at_depth(layers: Sequence[int], written_for: int, depth: int) -> tuple[int, ...]:
    """Layers of a decoder of `written_for` layers at the same relative places of one of `depth`.

    Raises:
        Unsupported: two of them fall together, or one is not inside the decoder.
    """
    found = tuple(math.floor(Fraction(layer * depth, written_for) + Fraction(1, 2)) for layer in layers)
    if any(late <= early for early, late in pairwise((-1, *found, depth))):
        raise Unsupported(
            f"layers {', '.join(map(str, layers))} of {written_for} fall on layers {', '.join(map(str, found))}"
            f" of a decoder of {depth}, which are not {len(found)} different ones"
        )
    return found


def only(layer: int, depth: int) -> tuple[int, ...]:
    """The one stage of a method that prunes once.

    Raises:
        Unsupported: a decoder of `depth` layers has no such layer.
    """
    if layer >= depth:
        raise Unsupported(f"layer {layer} does not exist: the decoder has layers 0 to {depth - 1}")
    return (layer,)


def text_after(visual: Tensor) -> Tensor:
    """Numbers of the text entries after the first visual one, of marks [N]."""
    first = int(visual.nonzero()[0, 0])
    return (~visual[first:]).nonzero()[:, 0] + first


def attention_of(view: LayerView, rows: Tensor) -> Tensor:
    """Causal softmax attention [H_q, R, N] in float32 of the entries `rows`, whose queries the view holds."""
    return attention_of_layers([view], rows)[0]


def attention_of_layers(views: Sequence[LayerView], rows: Tensor) -> Tensor:
    """The same of layers that are alike, [L, H_q, R, N]."""
    kv_heads, length, dim = views[0].keys.shape
    held = rows - (length - views[0].queries.shape[1])
    picked = torch.stack([view.queries[:, held] for view in views]).float()
    keys = torch.stack([view.keys for view in views]).float()
    logits = picked.reshape(len(views), kv_heads, -1, dim) @ keys.transpose(2, 3) / dim**0.5
    later = torch.arange(length, device=rows.device) > rows[:, None]
    attention: Tensor = logits.reshape(len(views), -1, len(rows), length).masked_fill(later, float("-inf")).softmax(-1)
    return attention
