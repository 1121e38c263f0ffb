"""Any press of the library kvpress as a method: `kvpress:SnapKVPress(window_size=16)`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from effivlm.compression.base import CachePart, LayerView, generator, taken
from effivlm.compression.choose import best, numbers_of
from effivlm.compression.gather import rows_of
from effivlm.decoding.caches import KeptLayer
from effivlm.methods._presses import Named, named
from effivlm.methods._shown import Shown, again
from effivlm.weights._kvpress import kvpress

OBSERVED = "ObservedAttentionPress"


@dataclass(frozen=True, kw_only=True)
class KvPress(CachePart):
    """Keep what a press of kvpress (arXiv 2510.00636) keeps of every layer, given the layer's own weights and what entered it.

    Presses that only score entries (`ScorerPress`) give their scores, and the K highest of every head stay, ties going to the
    lower entry. Others compress by themselves under the ratio that leaves K entries; where a press drops other entries of every
    head, which kvpress masks while decoding, these leave the cache.

    Differs from the library:
    - K is rounded half up, where it rounds down; the ratio that a press is given leaves K by its own rounding;
    - positions to come (`ExpectedAttentionPress`, `CapPress`) are those that the answer will have, not counted from the number
      of entries: on Qwen2-VL they come sooner;
    - queries and keys that a press projects again pass the layer's own norm of heads, where it has one, in every family;
    - attention that a press observes is summed over rows already, without a tensor of rows times entries;
    - what is drawn is seeded by sample and layer, unless the press has a seed of its own.
    """

    spelled_by: ClassVar[str] = "effivlm.methods._presses"
    library: ClassVar[str] = "kvpress"
    of: ClassVar[str] = "prompt entries"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {}}
    attends: ClassVar[bool] = True

    what: str
    press: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "press", made(named(self.what)))
        except (AssertionError, TypeError) as error:
            raise ValueError(f"kvpress:{self.what}: {error}") from error

    @property
    def columns(self) -> bool:  # type: ignore[override]
        return OBSERVED in named(self.what).names()

    @property
    def scores(self) -> bool:
        """Whether the press gives scores, and leaves the choice to what all of its kind have in common."""
        common = kvpress().ScorerPress
        return isinstance(self.press, common) and type(self.press).compress is common.compress

    def allowance(self, units: int) -> tuple[float, float]:
        """Whole chunks stay or go, or every chunk rounds down by itself."""
        chunk = getattr(self.press, "chunk_length", 0)
        if isinstance(self.press, kvpress().EntropyGatedChunkKVPress) or not chunk:
            return super().allowance(units)
        whole = isinstance(self.press, kvpress().ChunkKVPress)
        return (2 * chunk * units, chunk * units) if whole else (math.inf, units)

    def select(self, view: LayerView, budget: int, sample_id: str) -> Tensor:
        if budget == view.length:
            return torch.arange(budget, device=view.keys.device).expand(len(view.keys), -1)
        shown = Shown(view, 0)
        with self._asked(view, budget, sample_id):
            scores = self.press.score(*shown.asked(self.columns))
        if scores.shape != (1, *view.keys.shape[:2]):
            raise ValueError(
                f"kvpress:{self.what} gave scores {list(scores.shape)} of {list(view.keys.shape[:2])} entries"
            )
        return best(scores[0], budget)

    def layers(self, views: Sequence[LayerView], budgets: Sequence[int], sample_id: str) -> list[KeptLayer]:
        pairs = list(zip(views, budgets, strict=True))
        if self.scores:
            return taken(views, [self.select(view, budget, sample_id) for view, budget in pairs])
        return [self.pressed(view, budget, sample_id, len(views)) for view, budget in pairs]

    def pressed(self, view: LayerView, budget: int, sample_id: str, depth: int) -> KeptLayer:
        """What a press leaves of a layer that compresses by itself."""
        if budget == view.length:
            return KeptLayer(view.keys, view.values)
        shown = Shown(view, depth)
        with self._asked(view, budget, sample_id):
            keys, values = self.press.compress(*shown.asked(self.columns))
        if shown.masked_key_indices is not None:
            return _left(view, *shown.masked_key_indices[1:])
        places = again(view.keys, keys[0])
        if places is None:
            return KeptLayer(keys[0], values[0])
        places, order = places.sort(-1)
        return KeptLayer(rows_of(keys[0], order), rows_of(values[0], order), indices=places)

    @contextmanager
    def _asked(self, view: LayerView, budget: int, sample_id: str) -> Iterator[None]:
        """Inside, the press has the ratio that leaves `budget` entries of a layer, and what it draws is this layer's."""
        # a quarter more, for presses round down or to the nearest
        self.press.compression_ratio = 1 - (budget + 0.25) / view.length
        home = view.keys.device
        with torch.random.fork_rng([home] if home.type == "cuda" else []):
            seed = generator(self.seed, sample_id, view.layer).initial_seed()
            torch.default_generator.manual_seed(seed)
            if home.type == "cuda":  # and no other device
                with torch.cuda.device(home):
                    torch.cuda.manual_seed(seed)
            try:
                yield
            except AssertionError as error:
                raise ValueError(f"kvpress:{self.what}: {error}") from error


def made(press: Named) -> Any:
    """The object that a spelling says."""
    given = {name: made(value) if isinstance(value, Named) else value for name, value in press.arguments.items()}
    return getattr(kvpress(), press.name)(**given)


def _left(view: LayerView, heads: Tensor, places: Tensor) -> KeptLayer:
    """A layer without the entries `places` of `heads`, which every head has others of."""
    there = torch.ones(view.keys.shape[:2], dtype=torch.bool, device=view.keys.device)
    there[heads.to(there.device), places.to(there.device)] = False
    counts = there.sum(1).tolist()
    chosen = numbers_of(there, max(counts)) * (torch.arange(max(counts), device=there.device) < there.sum(1)[:, None])
    return KeptLayer(
        rows_of(view.keys, chosen),
        rows_of(view.values, chosen),
        lengths=tuple(counts) if len(set(counts)) > 1 else None,
        indices=chosen,
    )
