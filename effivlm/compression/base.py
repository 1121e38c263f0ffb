"""What a method is, one base per seam. Mathematics works on tensors of one sample and knows no model.

A method is a frozen dataclass: `keep` and its hyper-parameters are fields, it holds no state between samples. Its literal
class attributes are read without importing it: `of` (what keep is a fraction of), `presets` (name -> field values; "paper" is
the method's own paper), `default_preset`, `budgeted` (False: there is no budget to vary).
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, ClassVar, TypeVar, cast

import torch
from PIL.Image import Image
from torch import Tensor

from effivlm.compression.budget import apportion
from effivlm.compression.gather import Source
from effivlm.decoding.caches import KeptLayer
from effivlm.records import Budget
from effivlm.seams.angles import Angles, Moments
from effivlm.seams.attended import Attended
from effivlm.seams.columns import LayeredKeys
from effivlm.seams.hooks import Tower

Found = TypeVar("Found")


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
        return () if self.keep.whole else self.seam_parts()

    @abstractmethod
    def seam_parts(self) -> tuple[Part, ...]:
        """What works at each seam when something is to be dropped."""

    def allowance(self, units: int) -> tuple[float, float]:
        """How many tokens (entries) fewer, and how many more, than asked one sample may keep.

        One for each of the `units` that are rounded by themselves: the layers of a cache, else the sample. What only a
        method's structure explains is declared here; a cell that is further off fails.
        """
        parts = [part.allowance(units) for part in self.seam_parts()] or [(float(units), float(units))]
        return max(under for under, _ in parts), max(over for _, over in parts)


@dataclass(frozen=True, kw_only=True)
class Part(Method, ABC):
    """A method that works at one seam; most methods are one part."""

    seam: ClassVar[str]

    def seam_parts(self) -> tuple[Part, ...]:
        return (self,)

    def allowance(self, units: int) -> tuple[float, float]:
        return units, units


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

    def allowance(self, units: int) -> tuple[float, float]:
        """Images come in steps of many tokens, so that fewer may stay, and never more."""
        return math.inf, units


@dataclass(frozen=True, slots=True)
class Selection:
    """What stays of one image: token numbers [k] ascending, and their new features [k, d] where tokens were merged."""

    kept: Tensor
    features: Tensor | None = None


@dataclass(frozen=True, slots=True)
class ImageView:
    """One encoded image: projected features [n, d], and places (block, row, column) [n, 3] of every token.

    A block is a tile or frame; -1 marks newlines, which show no part of the image. Row and column count in the grid that tokens
    run over row by row, which tiles packed side by side share. `tower` is there for parts that ask; so is `question` [T, d], what
    the decoder embeds of the text that follows the last image (of all text where none follows).
    """

    features: Tensor
    places: Tensor
    tower: Tower | None = None
    question: Tensor | None = None

    @property
    def real(self) -> Tensor:
        """Numbers of the tokens that show a part of the image."""
        return (self.places[:, 0] >= 0).nonzero()[:, 0]


@dataclass(frozen=True, kw_only=True)
class VisualPart(Part):
    """Vision seam: visual tokens are dropped or merged before the decoder sees them.

    `looks` says whether it needs what the vision tower's attention showed, `reads` whether it needs the question.
    """

    seam: ClassVar[str] = "vision"
    looks: ClassVar[bool] = False
    reads: ClassVar[bool] = False

    @abstractmethod
    def select(self, views: Sequence[ImageView], sample_id: str) -> list[Selection]:
        """Choose tokens of every image of a sample; `sample_id` seeds whatever is drawn."""

    def shares(self, views: Sequence[ImageView]) -> list[int]:
        """Tokens that stay of each image: K of the sample in proportion to all its tokens, markers never among them."""
        sizes, room = [len(view.features) for view in views], [len(view.real) for view in views]
        budget = min(self.keep.of(sum(sizes)), sum(room))
        return apportion(sizes, budget, low=int(budget >= len(sizes)), high=room)


@dataclass(frozen=True, slots=True)
class LayerView:
    """What one attention layer showed during prefill of one prompt.

    queries [H_q, W, D]: the last W rows, after rotary embedding; keys, values [H_kv, N, D]; visual [N] marks visual entries;
    received [H_q, N]: attention that every key got, summed over all N rows, for parts that ask for it. `moments` are those of the
    queries before rotary embedding, by the row from which on they are counted, for parts that ask for them; following(n): the
    angles of the n positions after the prompt; `attended`: the layer and what entered it, for parts that ask for it. `question`
    is how many rows follow the last visual entry, where that is known without asking the device (-1: it is not). `found` keeps
    what was computed from these tensors, for every part that wants the same.
    """

    queries: Tensor
    keys: Tensor
    values: Tensor
    visual: Tensor
    layer: int
    received: Tensor | None = None
    question: int = -1
    moments: Mapping[int, Moments] = field(default_factory=dict)
    following: Callable[[int], Angles] | None = None
    attended: Attended | None = None
    found: dict[Hashable, Any] = field(default_factory=dict, init=False, compare=False, repr=False)

    @property
    def length(self) -> int:
        return self.keys.shape[1]

    @property
    def question_rows(self) -> int:
        """How many rows of the prompt follow its last visual entry; the last 32 where none does, or nothing is visual."""
        return self.question if self.question >= 0 else question_rows(self.visual)

    def once(self, name: Hashable, make: Callable[[], Found]) -> Found:
        """What `make` computes, under a name that says all that it depends on beside this view."""
        if name not in self.found:
            self.found[name] = make()
        return cast(Found, self.found[name])


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a layer part prunes: before decoder layer `layer`, which is its stage `number` (0, 1 ...).

    before: what the layer before showed, of the N entries still there; hidden [N, d]: what enters; normed(): the same after the
    decoder's last norm; ahead(): what this layer's attention is about to see, with all query rows; angles: cosines and sines
    [N, D] of their rotary embedding. Of the whole prompt of P entries: embeds [P, d], what entered the first layer; marks [P],
    which are visual; there [N], the places of those still there (None: all).
    """

    number: int
    layer: int
    before: LayerView
    hidden: Tensor
    embeds: Tensor
    marks: Tensor
    ahead: Callable[[], LayerView]
    normed: Callable[[], Tensor]
    angles: tuple[Tensor, Tensor]
    there: Tensor | None = None

    @property
    def visual(self) -> Tensor:
        """Which of the entries still there are visual [N]."""
        return self.marks if self.there is None else self.marks[self.there]


@dataclass(frozen=True, kw_only=True)
class LayerPart(Part):
    """Layer seam: visual tokens leave the decoder on entry to some of its layers."""

    seam: ClassVar[str] = "layer"

    @property
    def layer_mean(self) -> bool:
        """Whether `keep` counts the mean over all decoder layers; else what the last layers see."""
        return False

    @abstractmethod
    def stages(self, depth: int) -> tuple[int, ...]:
        """Layers before which tokens leave, ascending, of a decoder of `depth` layers; none is 0.

        Raises:
            Unsupported: the decoder has no such layers.
        """

    def budgets(self, visual: int, depth: int) -> tuple[int, ...]:
        """How many of `visual` tokens stay after each stage; not increasing.

        Raises:
            Unsupported: the budget cannot be reached.
        """
        return (self.keep.of(visual),) * len(self.stages(depth))

    @abstractmethod
    def rows(self, visual: Tensor) -> int:
        """How many of the last query rows of the layer before are needed; `visual` [N], on the host, marks the prompt's visual
        entries."""

    @abstractmethod
    def select(self, stage: Stage, budget: int, sample_id: str) -> Selection:
        """Positions of the visual entries that stay, ascending [budget], and their new hidden states where merged."""


@dataclass(frozen=True, kw_only=True)
class CachePart(Part):
    """Cache seam: after a dense prefill, entries of the key-value cache are dropped (or merged).

    `columns` says whether views need `received`, `attends` whether they need `attended`.
    """

    seam: ClassVar[str] = "cache"
    of: ClassVar[str] = "prompt entries"
    columns: ClassVar[bool] = False
    attends: ClassVar[bool] = False

    @property
    def waits(self) -> bool:
        """Whether `compress` has to wait for the prefill, to know its budgets, say; such cells come after the others."""
        return False

    def rows(self, visual: Tensor) -> int:
        """How many of the last query rows are needed; `visual` [N], on the host, marks the prompt's visual entries."""
        return 0

    def moments_from(self, length: int) -> int | None:
        """The row from which on moments of a layer's queries are needed, of a layer of `length` entries; None: they are not."""
        return None

    def look(self, view: LayerView) -> None:
        """Compute what can be known of a layer before the others are, for `compress` to find.

        Called while the prefill runs, whose later layers keep the device busy meanwhile; nothing here may wait for the device.
        """

    def budgets(self, views: Sequence[LayerView]) -> list[int]:
        """Entries that stay in each layer; uniform here. They sum to layers * keep.of(length)."""
        return [self.keep.of(view.length) for view in views]

    @abstractmethod
    def select(self, view: LayerView, budget: int, sample_id: str) -> Tensor:
        """Entries that stay, ascending [H_kv, budget]."""

    def layers(self, views: Sequence[LayerView], budgets: Sequence[int], sample_id: str) -> list[KeptLayer]:
        """The compressed layers; what stays of each is what `select` finds, unless layers are told together at less cost."""
        return taken(views, [self.select(view, budget, sample_id) for view, budget in zip(views, budgets, strict=True)])

    def layer(self, view: LayerView, budget: int, sample_id: str) -> KeptLayer:
        """One compressed layer."""
        return self.layers([view], [budget], sample_id)[0]

    def compress(self, views: Sequence[LayerView], sample_id: str) -> list[KeptLayer]:
        """The compressed cache of a prompt."""
        return self.layers(views, self.budgets(views), sample_id)


LAST_ROWS = 32  # stand for the question where no text follows the image


def question_rows(visual: Tensor) -> int:
    """How many rows of a prompt follow its last visual entry; the last 32 where none does, or nothing is visual."""
    marks = visual.nonzero()[:, 0]
    after = len(visual) - 1 - int(marks[-1]) if len(marks) else 0
    return after or min(LAST_ROWS, len(visual))


def alike(views: Sequence[LayerView], budgets: Sequence[int] = ()) -> bool:
    """Whether layers see the same entries on one device (and keep as many of them), so that what is computed of each can be
    computed of all together."""
    first = views[0]
    return len(set(budgets)) <= 1 and all(view.visual is first.visual and view.length == first.length for view in views)


def of_all(views: Sequence[LayerView], name: Hashable, make: Callable[[], Found]) -> Found:
    """What `make` computes of layers together, under a name that says all that it depends on beside them."""
    keys = [view.keys for view in views]  # kept beside what is found, so that no others get their ids
    return views[0].once((name, *map(id, keys)), lambda: (keys, make()))[1]


def keys_of(views: Sequence[LayerView]) -> LayeredKeys:
    """The keys of all layers, as those want them who look at them together."""
    return of_all(views, "keys", lambda: LayeredKeys([view.keys for view in views]))


def taken(views: Sequence[LayerView], chosen: Sequence[Tensor]) -> list[KeptLayer]:
    """The entries `chosen` [H_kv, K] of every layer."""
    entries = [view.keys for view in views], [view.values for view in views]
    return of_all(views, "source", lambda: Source(*entries)).taken(chosen)


def generator(seed: int, *names: object) -> torch.Generator:
    """A CPU random generator that depends on `seed` and `names` alone: the same on every device and in every order."""
    digest = hashlib.sha256(repr((seed, *names)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
