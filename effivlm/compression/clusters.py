"""Clusters around density peaks: centres lie where neighbours are near and every denser point is far."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from effivlm.compression.choose import best
from effivlm.compression.similar import ELEMENTS, MOST, alike, blocks

MATRIX = "use_mm_for_euclid_dist"  # many points in wide spaces: differences take seconds


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


def peaks(features: Tensor, near: int) -> Tensor:
    """Logarithm of the density peak score of every point [n, d], in float32; memory is linear in n.

    As in `clustered`, but with the density of the `near` nearest points, itself included; where no point is denser, the distance
    is the largest there is. The earlier of two equally dense points counts as the denser.
    """
    points = features.float() / features.shape[1] ** 0.5
    near, places = min(near, len(points)), torch.arange(len(points), device=points.device)
    rows = _apart_twice(points)
    density = torch.cat([-part.topk(near, largest=False).values.square().mean(1) for part in rows()])
    start, apart, farthest = 0, [], []
    for distances in rows():
        own = slice(start, start + len(distances))
        level = density[own, None]
        denser = (density > level) | ((density == level) & (places < places[own, None]))
        apart.append(distances.masked_fill(~denser, torch.inf).amin(1))
        farthest.append(distances.amax())
        start += len(distances)
    found = torch.cat(apart)
    return density + found.where(found.isfinite(), torch.stack(farthest).amax()).log()


def _apart_twice(points: Tensor) -> Callable[[], Iterable[Tensor]]:
    """Distances of points [n, d], block of rows by block, every time it is called; where a GPU has room they are kept."""
    if not points.is_cuda or len(points) ** 2 > MOST:
        return lambda: (torch.cdist(block, points, compute_mode=MATRIX) for block in blocks(points, len(points)))
    products = alike(points)
    squares = products.diagonal().clone()
    whole = products.mul_(-2).add_(squares).add_(squares[:, None]).clamp_(min=0).sqrt_()
    return lambda: whole.split(max(1, ELEMENTS // len(points)))
