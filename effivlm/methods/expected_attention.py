"""Expected attention: what queries yet to come would look at, if they are drawn like those of the prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from effivlm.compression.base import LayerView, of_all
from effivlm.compression.layers import check
from effivlm.compression.scored import ScoredCache

MOST = 1 << 27
"""Numbers that are held at once: layers are scored together as far as those of their heads fit."""


@dataclass(frozen=True, kw_only=True)
class ExpectedAttention(ScoredCache):
    """Rank entries by the attention that a normal distribution of queries gives them on average (arXiv 2510.00636).

    Mean and covariance of a query head are those of the prompt's rows before rotary embedding, turned by the mean rotation of the
    next `horizon` positions. With these, m and S, an entry's weight is the softmax of m.k / sqrt(D) + k.S.k / 2D over all entries
    but the first `sinks`, which always stay; weights are averaged over the query heads of a KV head and, after adding `epsilon`,
    multiplied by the length of the entry's value.

    Differs from the paper:
    - the rows are those that a layer sees: turned back by the angles that they were turned by, where the authors' code projects
      hidden states again; on Qwen2-VL these are angles in time, height and width, and the next positions are equal in all three;
    - the next positions are those that the answer will have, which on Qwen2-VL come sooner than the number of entries says;
    - the first `sinks` rows are left out of the statistics, as in the authors' code, only where others remain.
    """

    of: ClassVar[str] = "prompt entries"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {}}

    horizon: int = 512
    sinks: int = 4
    covariance: bool = True
    value_norm: bool = True
    epsilon: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check("horizon", self.horizon, 1)
        check("epsilon", self.epsilon, 0)

    def moments_from(self, length: int) -> int:
        return min(self.sinks, length - 1)

    def shown(self, views: Sequence[LayerView]) -> Tensor:
        everything = (self.horizon, self.sinks, self.covariance, self.value_norm, self.epsilon)
        name = ("expected", *everything)
        return of_all(views, name, lambda: self._expected(views))

    def _expected(self, views: Sequence[LayerView]) -> Tensor:
        """Scores [L, H_kv, N] of layers that are alike."""
        first = views[0]
        if first.following is None:
            raise ValueError(
                "the layer was looked at without its rotary embedding, so no query to come can be expected"
            )
        before = [view.moments[self.moments_from(view.length)] for view in views]
        dim, turn = first.keys.shape[-1], first.following(self.horizon).mean()
        rotation = turn.turned(torch.eye(dim, device=first.keys.device))
        means = torch.stack([one.mean for one in before]) @ rotation
        some = max(1, MOST // (means.shape[1] * first.keys[0].numel())) if self.covariance else len(views)
        found = []
        for start in range(0, len(views), some):
            part = slice(start, start + some)
            spreads = torch.stack([one.covariance for one in before[part]]) if self.covariance else None
            found.append(
                self._scores(views[part], means[part], None if spreads is None else rotation.T @ spreads @ rotation)
            )
        return torch.cat(found)

    def _scores(self, views: Sequence[LayerView], mean: Tensor, spread: Tensor | None) -> Tensor:
        """Scores [L, H_kv, N] by mean [L, H_q, D] and covariance [L, H_q, D, D] of the queries to come."""
        sinks = min(self.sinks, views[0].length)
        keys = torch.stack([view.keys[:, sinks:] for view in views]).float()
        heads, _, dim = keys.shape[1:]
        logits = mean.unflatten(1, (heads, -1)) @ keys.transpose(2, 3) / dim**0.5
        if spread is not None:  # all query heads of a KV head in one product
            ahead = (keys @ spread.unflatten(1, (heads, -1)).transpose(2, 3).flatten(3)).unflatten(3, (-1, dim))
            logits = logits + (ahead * keys[:, :, :, None]).sum(-1).transpose(2, 3) / (2 * dim)
        scores = logits.softmax(-1).mean(2)
        if self.value_norm:
            values = torch.stack([view.values[:, sinks:] for view in views])
            scores = (scores + self.epsilon) * values.float().norm(dim=-1)
        return torch.cat([scores.new_zeros(len(views), heads, sinks), scores], dim=-1)
