"""What happens when exactly the attention sinks go: methods that never keep them, and one that drops nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from effivlm.compression.pools import Pools, checked
from effivlm.extending import CachePart, LayerView, Selection, Stage, Unsupported, best, generator
from effivlm.methods.fastv import FastV
from effivlm.methods.streaming_llm import StreamingLlm
from effivlm.methods.visionzip import VisionZip
from effivlm.seams.columns import received

SINKS = 4
"""As many as StreamingLLM keeps."""


@dataclass(frozen=True, kw_only=True)
class RecentOnly(StreamingLlm):
    """StreamingLLM with its sinks given to more recent entries."""

    of: ClassVar[str] = "prompt entries"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {"sinks": 0}}


@dataclass(frozen=True, kw_only=True)
class LookedAt(FastV):
    """FastV's choice with the visual sinks kept for certain, or never: those that all rows attend most in the layer before.

    Differs from the paper: there is none, this is a study's variant.
    """

    of: ClassVar[str] = "visual tokens"
    default_preset: ClassVar[str] = "guarded"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"guarded": {"guard": True}, "gone": {"guard": False}}

    guard: bool = True

    def rows(self, visual: Tensor) -> int:
        return len(visual)

    def select(self, stage: Stage, budget: int, sample_id: str) -> Selection:
        view, visual = stage.before, stage.visual.nonzero()[:, 0]
        scores = received(view.queries[:, -1:], view.keys).mean(0)[visual]
        all_rows = received(view.queries[:, -len(stage.visual) :], view.keys).mean(0)[visual]
        sinks = best(all_rows, min(SINKS, budget, len(visual) - budget))
        scores = scores.clone()
        scores[sinks] = torch.inf if self.guard else -torch.inf
        return Selection(visual[best(scores, budget)])


@dataclass(frozen=True, kw_only=True)
class TowerLooked(VisionZip):
    """VisionZip whose dominant tokens are never those that the tower attends most, `SINKS` of every tile or frame.

    Differs from the paper: there is none, this is a study's variant.
    """

    looks: ClassVar[bool] = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {}}

    def choose_all(self, pools: Pools, budgets: Sequence[int]) -> Selection:
        tower = checked(pools.tokens.tower)
        attended = tower.received.clone()
        for row, size, budget in zip(pools.numbers, pools.sizes, budgets, strict=True):
            pool = row[:size]
            attended[pool[best(attended[pool], min(SINKS, size - budget))]] = 0.0  # all others got more
        tokens = replace(pools.tokens, tower=replace(tower, received=attended))
        return super().choose_all(replace(pools, tokens=tokens), budgets)


@dataclass(frozen=True, kw_only=True)
class Robbed(CachePart):
    """Keep everything but the most attended entries of one modality, or as many of it drawn at random.

    Every KV head loses those that all rows of the prompt attend most in it; the last `spared` rows, which are read next, stay.

    Differs from the paper: there is none, this is a study's variant.
    """

    of: ClassVar[str] = "prompt entries"
    columns: ClassVar[bool] = True
    default_preset: ClassVar[str] = "visual"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "visual": {},
        "visual_drawn": {"drawn": True},
        "text": {"visual": False},
        "text_drawn": {"visual": False, "drawn": True},
    }

    visual: bool = True
    drawn: bool = False
    spared: int = 8

    def select(self, view: LayerView, budget: int, sample_id: str) -> Tensor:
        heads = len(view.keys)
        assert view.received is not None  # columns are asked for
        if self.drawn:
            rng = generator(self.seed, "robbed", sample_id, view.layer)
            scores = torch.rand(heads, view.length, generator=rng).to(view.keys.device)
        else:
            scores = view.received.unflatten(0, (heads, -1)).mean(1)
        there = view.visual if self.visual else ~view.visual
        there = there & (torch.arange(view.length, device=there.device) < view.length - self.spared)
        if (few := int(there.sum())) < view.length - budget:
            raise Unsupported(f"{view.length - budget} entries cannot go of {few} of their modality")
        return best(-scores.masked_fill(~there, -torch.inf), budget)
