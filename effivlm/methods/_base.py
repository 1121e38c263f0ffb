"""What a method is, one base per seam. Mathematics works on tensors of one sample and knows no model.

A method is a frozen dataclass: `keep` and its hyper-parameters are fields, it holds no state between samples. Its literal
class attributes are read without importing it: `of` (what keep is a fraction of), `presets` (name -> field values; "paper" is
the method's own paper), `default_preset`, `budgeted` (False: there is no budget to vary).
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, ClassVar

import torch
from PIL.Image import Image
from torch import Tensor

from effivlm.hooks import KeptLayer
from effivlm.records import Budget


@dataclass(frozen=True, kw_only=True)
class Method:
    """A training-free acceleration; `parts` are the seams it works at, in the order of the run."""

    of: ClassVar[str] = "visual tokens"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {}}
    default_preset: ClassVar[str] = "paper"
    budgeted: ClassVar[bool] = True

    keep: Budget = field(default_factory=lambda: Budget(Fraction(1)))
    seed: int = 0

    @property
    def parts(self) -> tuple[Part, ...]:
        """The seams that are really used; none at keep 1, so that identity is the dense path itself."""
        return () if self.keep.keep == 1 else self.seam_parts()

    @abstractmethod
    def seam_parts(self) -> tuple[Part, ...]:
        """What works at each seam when something is to be dropped."""


@dataclass(frozen=True, kw_only=True)
class Part(Method, ABC):
    """A method that works at one seam; most methods are one part."""

    seam: ClassVar[str]

    def seam_parts(self) -> tuple[Part, ...]:
        return (self,)


@dataclass(frozen=True, kw_only=True)
class ImagePart(Part):
    """Image seam: other images go to the processor."""

    seam: ClassVar[str] = "image"

    @abstractmethod
    def shrink(self, images: Sequence[Image], count: Callable[[Sequence[Image]], int]) -> list[Image]:
        """Images that make fewer tokens; `count` says how many visual tokens images would make.

        Raises:
            Unsupported: no image size reaches the budget.
        """


@dataclass(frozen=True, slots=True)
class Selection:
    """What stays of one image: token numbers [k] ascending, and their new features [k, d] where tokens were merged."""

    kept: Tensor
    features: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class VisualPart(Part):
    """Vision seam: visual tokens are dropped or merged before the decoder sees them."""

    seam: ClassVar[str] = "vision"

    @abstractmethod
    def select(self, features: Sequence[Tensor], places: Sequence[Tensor], sample_id: str) -> list[Selection]:
        """Choose tokens of every image of a sample.

        Args:
            features: per image the projected features [n, d].
            places: per image (block, row, column) [n, 3] of every token; a block is a tile or frame, -1 marks newlines.
            sample_id: seeds whatever is drawn.
        """


@dataclass(frozen=True, slots=True)
class LayerView:
    """What one attention layer showed during prefill of one prompt.

    queries [H_q, W, D]: the last W rows, after rotary embedding; keys, values [H_kv, N, D]; visual [N] marks visual entries.
    """

    queries: Tensor
    keys: Tensor
    values: Tensor
    visual: Tensor
    layer: int

    @property
    def length(self) -> int:
        return self.keys.shape[1]


@dataclass(frozen=True, kw_only=True)
class LayerPart(Part):
    """Layer seam: visual tokens leave the decoder on entry to layer `layer`, chosen by what the layer before it showed."""

    seam: ClassVar[str] = "layer"
    layer: int = 2

    def __post_init__(self) -> None:
        if self.layer < 1:
            raise ValueError(
                f"layer {self.layer} cannot prune: the layer before it is observed, so it must be 1 or more"
            )

    @abstractmethod
    def rows(self, length: int) -> int:
        """How many of the last query rows are needed, of a prompt of `length`."""

    @abstractmethod
    def select(self, view: LayerView, budget: int, sample_id: str) -> Tensor:
        """Positions of the visual entries that stay, ascending [budget]."""


@dataclass(frozen=True, kw_only=True)
class CachePart(Part):
    """Cache seam: after a dense prefill, entries of the key-value cache are dropped (or merged)."""

    seam: ClassVar[str] = "cache"
    of: ClassVar[str] = "prompt entries"

    def rows(self, length: int) -> int:
        """How many of the last query rows are needed, of a prompt of `length`."""
        return 0

    def budgets(self, views: Sequence[LayerView]) -> list[int]:
        """Entries that stay in each layer; uniform here. They sum to layers * keep.of(length)."""
        return [self.keep.of(view.length) for view in views]

    @abstractmethod
    def select(self, view: LayerView, budget: int, sample_id: str) -> Tensor:
        """Entries that stay, ascending [H_kv, budget]."""

    def compress(self, views: Sequence[LayerView], sample_id: str) -> list[KeptLayer]:
        """The compressed cache of a prompt, layer by layer."""
        kept = []
        for view, budget in zip(views, self.budgets(views), strict=True):
            chosen = self.select(view, budget, sample_id)
            keys = view.keys.gather(1, chosen[..., None].expand(-1, -1, view.keys.shape[-1]))
            values = view.values.gather(1, chosen[..., None].expand(-1, -1, view.values.shape[-1]))
            kept.append(KeptLayer(keys, values, indices=chosen))
        return kept


def generator(seed: int, *names: object) -> torch.Generator:
    """A CPU random generator that depends on `seed` and `names` alone: the same on every device and in every order."""
    digest = hashlib.sha256(repr((seed, *names)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def best(scores: Tensor, count: int) -> Tensor:
    """Numbers of the `count` highest scores of the last dimension, ascending; ties go to the lower number.

    Raises:
        ValueError: a score is NaN, so that no order exists.
    """
    if scores.isnan().any():
        raise ValueError("scores hold NaN, so no entries can be chosen by them")
    order = scores.sort(dim=-1, descending=True, stable=True).indices[..., :count]
    return order.sort(dim=-1).values
