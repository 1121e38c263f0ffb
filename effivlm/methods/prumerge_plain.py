"""PruMerge: tokens that the class token singles out take in their neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from effivlm.compression.choose import best
from effivlm.compression.prumerge import Merging


@dataclass(frozen=True, kw_only=True)
class PruMergePlain(Merging):
    """PruMerge (arXiv 2403.15388): keep the tokens with most attention of one wide head and merge their neighbours into them.

    A kept token becomes itself plus the attention-weighted sum of its 32 most similar tokens by key; the last of the K
    tokens is the weighted sum of all dropped ones. Plain in name alone: no public name may lie inside another's.

    Differs from the paper:
    - K is given, where the paper keeps as many tokens as are outliers of the score;
    - where the tower has no class token, the score is the mean over all tokens of a tile or frame;
    - scores come from the layer that feeds the projector, not from the one behind it; they are attention within a tile, so
      that over a tiled picture they do not sum to one;
    - tokens are merged after the projector, scores and keys brought there as features are (newlines never stay);
    - queries and keys are seen after what the tower does to them: rotary embedding on Qwen2-VL, normalisation in
      InternVL's large tower;
    - weights are not divided by their sum, as in the paper's code (its text averages; `normalise`);
    - kept tokens stand in the order of the picture, the extra one in place of the last dropped token, not at the end;
    - an image whose budget is all its tokens gets no extra one;
    - preset effivlm has no extra token: EffiVLM-Bench (arXiv 2506.00479) has none on Qwen2-VL and adds it beyond the
      budget elsewhere; features in the wrong places, as that code has on two families, are not reproduced.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {}, "effivlm": {"extra": False}}

    def chosen(self, scores: Tensor, count: int) -> Tensor:
        return best(scores, count)
