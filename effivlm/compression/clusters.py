"""Clusters around density peaks: centres lie where neighbours are near and every denser point is far."""

from __future__ import annotations

import torch
from torch import Tensor

from effivlm.compression.choose import best


def clustered(features: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Split features [n, d] into `count` clusters: numbers of the centres, ascending [count], and the clusters' means [count, d].

    The density of a point is exp(-mean squared distance to its `count` nearest, itself included); its peak score is density
    times the distance to the nearest denser point. Both are compared as logarithms, which do not underflow. The earlier of two
    equally dense points counts as the denser. A point joins the nearest centre, the earlier one where two are equally near.
    """
    number, width = features.shape
    exact = "donot_use_mm_for_euclid_dist"  # equal points must lie at distance 0
    distances = torch.cdist(features, features, compute_mode=exact) / width**0.5
    density = -distances.sort(-1).values[:, :count].square().mean(-1)
    places = torch.arange(number, device=features.device)
    denser = (density > density[:, None]) | ((density == density[:, None]) & (places < places[:, None]))
    apart = distances.masked_fill(~denser, float("inf")).amin(-1)
    apart = apart.where(apart.isfinite(), distances.max())
    centres = best(density + apart.log(), count)
    joined = best(-distances[:, centres], 1)[:, 0]
    joined[centres] = torch.arange(count, device=features.device)
    member = (joined == torch.arange(count, device=features.device)[:, None]).to(features)
    return centres, member @ features / member.sum(
        1, keepdim=True
    )  # a product adds in one order, an indexed sum may not
