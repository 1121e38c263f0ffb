"""PruMerge: tokens that the class token singles out take in their neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from effivlm.compression.pools import marked
from effivlm.compression.prumerge import Merging


@dataclass(frozen=True, kw_only=True)
class PruMergePlain(Merging):
    """PruMerge (arXiv 2403.15388): keep the tokens with most attention of one wide head and merge their neighbours into them.

    A kept token becomes itself plus the attention-weighted sum of its 32 most similar tokens by key; the last of the K tokens of
    a tile or frame is the weighted sum of all it dropped. Preset joint lets all tiles of an image compete for one K. Plain in
    name alone: no public name may lie inside another's.

    Differs from the paper:
    - K is given, rounded half up over the sample and shared out evenly to the tiles and frames of an image, where the paper
      keeps as many tokens of each as are outliers of the score, mean over all;
    - where the tower has no class token, the score is the mean over all tokens of a tile or frame;
    - scores come from the layer that feeds the projector, not from the one behind it;
    - tokens are merged after the projector, scores and keys brought there as features are: what was padding is gone before;
    - queries and keys are seen after what the tower does to them: rotary embedding on Qwen2-VL, normalisation in
      InternVL's large tower;
    - weights are not divided by their sum, as in the paper's code (its text averages; `normalise`);
    - kept tokens stand in the order of the picture, the extra one in place of the last dropped token, not at the end;
    - a tile whose budget is all its tokens gets no extra one;
    - preset effivlm has no extra token: EffiVLM-Bench (arXiv 2506.00479) has none on Qwen2-VL and adds it beyond the
      budget elsewhere; that it rounds K down, its second last layer on two families, its scores head by head on Qwen2-VL and
      features in the wrong places, as its code has on two families, are not reproduced.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {},
        "effivlm": {"extra": False},
        "joint": {"scope": "image"},
    }

    def chosen(self, scores: Tensor, sizes: Sequence[int], counts: Sequence[int]) -> Tensor:
        return marked(scores, counts)
