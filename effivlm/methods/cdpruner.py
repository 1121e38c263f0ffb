"""CDPruner: tokens that answer the question, and differ from each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from effivlm.compression.base import ImageView, Selection
from effivlm.compression.per_image import PerTile, Seen
from effivlm.compression.pools import Pools, fused, parts_of
from effivlm.compression.similar import unit

SMALL = 1e-6
"""Added to relevance; what is left of a token's own kernel entry under this is rounding."""
NO_RELEVANCE = "features or the question hold NaN, so no token is more relevant than another"


@dataclass(frozen=True, kw_only=True)
class CdPruner(PerTile):
    """Pick by a determinantal point process on similarity, conditioned on relevance to the question (arXiv 2506.10967).

    The kernel is diag(r) S diag(r): S holds cosines of projected features, r a token's mean cosine with the embeddings of the
    question, brought to [0, 1] over its image. Greedily, the token that most increases the determinant is picked, K times in
    every tile or frame. Preset joint lets all tiles of an image compete for one K.

    Differs from the paper:
    - the question is what the decoder embeds after the last image, its template included, and r compares that with projected
      features, as the paper does for models without a text encoder: nothing here has CLIP's (whose cosines are negated);
    - K follows from keep, rounded half up over the sample and shared out evenly to the tiles and frames of an image;
    - where picks span all others to 1e-6 of the kernel, those follow by relevance (the authors' code divides by rounding).
    """

    reads: ClassVar[bool] = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {}, "joint": {"scope": "image"}}

    def whole(self, view: ImageView) -> Tensor:
        """Relevance [n] of every token; markers count for nothing.

        Raises:
            ValueError: nobody told the question.
        """
        if view.question is None:
            raise ValueError("this method needs the embeddings of the question, but the images came without it")
        cosines = unit(view.features) @ unit(view.question).mean(0)
        low, high = cosines[view.real].amin(), cosines[view.real].amax()
        return (cosines - low + SMALL) / (high - low).clamp(min=SMALL)

    def choose(self, seen: Seen, budget: int) -> Selection:
        if seen.found is None:
            raise ValueError("tokens are picked by relevance, which is to be found of the whole image first")
        return Selection(determinant(unit(seen.features), seen.found, budget).sort().values)

    def choose_all(self, pools: Pools, budgets: Sequence[int]) -> Selection:
        relevance = pools.tokens.found
        if relevance is None or not fused(pools):
            return super().choose_all(pools, budgets)
        rows = unit(pools.tokens.features) * relevance[:, None]
        if rows.isnan().any():
            raise ValueError(NO_RELEVANCE)
        parts = [
            part.taken(_determinants(part, rows, relevance, counts), counts)
            for part, counts in parts_of(pools, budgets)
        ]
        return Selection(torch.cat(parts))


def determinant(tokens: Tensor, relevance: Tensor, count: int) -> Tensor:
    """Numbers of `count` of the unit tokens [n, d] in the order of the greedy MAP of a DPP; memory is linear in n.

    The kernel is the Gram matrix of relevance * tokens, so what Cholesky leaves of its diagonal is the squared distance of a
    row from the span of the picked ones; `basis` is that span.

    Raises:
        ValueError: a feature or relevance is NaN.
    """
    rows = tokens * relevance[:, None]
    left = rows.square().sum(1)
    if left.isnan().any():
        raise ValueError(NO_RELEVANCE)
    basis, picked = rows.new_zeros(min(count, rows.shape[1]), rows.shape[1]), []
    taken = torch.zeros_like(left, dtype=torch.bool)
    for number in range(count):  # nothing here waits for the device: the number of a pick stays there
        order = torch.where(left > SMALL, left, SMALL * relevance / (1 + SMALL)).masked_fill(taken, -1)
        pick = order.argmax(0, keepdim=True)
        picked.append(pick)
        taken.index_fill_(0, pick, True)
        if number < len(basis):
            row = rows[pick][0]
            rest = row - basis[:number].T @ (basis[:number] @ row)
            basis[number] = torch.where(left[pick] > SMALL, rest / rest.norm().clamp(min=SMALL), 0)
            left = left - (rows @ basis[number]).square()
    return torch.cat(picked)


def _determinants(pools: Pools, rows: Tensor, relevance: Tensor, counts: Sequence[int]) -> Tensor:
    """`determinant` of all pools, in one kernel: places [T, K] of what is picked of the rows [n, d]."""
    from effivlm.kernels import greedy

    own, most = rows[pools.numbers], max(counts)
    facts = pools.padded(relevance, 0), pools.tensor(pools.sizes), pools.tensor(counts)
    return greedy.determinant(own @ own.mT, *facts, most, min(most, rows.shape[1]), SMALL)
