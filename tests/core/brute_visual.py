"""The methods that choose visual tokens, written out with loops in float64. Nothing here uses the package's mathematics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from effivlm.compression.per_image import Seen
from effivlm.methods.divprune import DivPrune
from effivlm.methods.prumerge_plain import PruMergePlain
from effivlm.methods.prumerge_plus import PruMergePlus
from effivlm.methods.visionzip import VisionZip
from effivlm.methods.vispruner import VisPruner
from effivlm.seams.hooks import Tower

Array = NDArray[np.float64]
Method = VisionZip | PruMergePlain | PruMergePlus | DivPrune | VisPruner
KINDS = [VisionZip, PruMergePlain, PruMergePlus, DivPrune, VisPruner]


@dataclass
class Image:
    """One image in float64: features [n, d], two scores [n], keys [n, H, D]."""

    features: Array
    received: Array
    single: Array
    keys: Array


@dataclass
class Result:
    """Kept tokens, their features (None where unchanged), and the smallest margin by which anything was decided."""

    kept: list[int]
    features: Array | None = None
    margin: float = math.inf


def top(scores: Array, count: int) -> list[int]:
    return sorted(sorted(range(len(scores)), key=lambda index: (-scores[index], index))[:count])


def cosine(one: Array, other: Array) -> float:
    return float(one.ravel() @ other.ravel() / math.sqrt((one.ravel() @ one.ravel()) * (other.ravel() @ other.ravel())))


def gap(values: list[float]) -> float:
    """The smallest difference between values that are not one and the same number."""
    ordered = sorted(values)
    return min((b - a for a, b in pairwise(ordered)), default=math.inf)


def visionzip(method: VisionZip, image: Image, budget: int) -> Result:
    share = Fraction(str(method.context)) * budget
    count = math.floor(share + Fraction(1, 2))
    if method.rounding == "down":
        count = min(budget - 1, max(1, int(share)))
    dominant = top(image.received, budget - count)
    rest = [token for token in range(len(image.features)) if token not in dominant]
    if not count:
        return Result(dominant)
    stride = max(1, len(rest) // count)
    places = [j * stride if method.centre == "stride" else j * len(rest) // count for j in range(count)]
    centres = [rest[place] for place in places]
    metric = image.keys.mean(1)
    joined: dict[int, list[int]] = {centre: [] for centre in centres}
    margin = math.inf
    for token in rest:
        if token in joined:
            continue
        alike = [cosine(metric[token], metric[centre]) for centre in centres]
        margin = min(margin, gap(alike))
        joined[centres[int(np.argmax(alike))]].append(token)
    made = {token: image.features[token] for token in dominant}
    for centre, tokens in joined.items():
        total = sum((image.features[token] for token in tokens), np.zeros_like(image.features[0]))
        if method.merge == "mean":
            made[centre] = (image.features[centre] + total) / (1 + len(tokens))
        else:
            made[centre] = image.features[centre] + total / max(1, len(tokens))
    kept = sorted(made)
    return Result(kept, np.array([made[token] for token in kept]), margin)


def prumerge(method: PruMergePlain | PruMergePlus, image: Image, budget: int) -> Result:
    length, scores = len(image.features), image.single
    extra = method.extra and budget < length
    count = budget - int(extra)
    chosen = top(scores, count) if isinstance(method, PruMergePlain) else sampled(method, scores, count)
    made, margin = {}, math.inf
    for token in chosen:
        rest = [other for other in range(length) if other != token]
        alike = {other: cosine(image.keys[token], image.keys[other]) for other in rest}
        near = sorted(rest, key=lambda other: (-alike[other], other))
        if method.neighbours < len(near) and method.neighbours:
            margin = min(margin, alike[near[method.neighbours - 1]] - alike[near[method.neighbours]])
        near = near[: method.neighbours]
        made[token] = image.features[token] + weighted(method, image, near)
    dropped = [token for token in range(length) if token not in chosen]
    if extra:
        made[dropped[-1]] = weighted(method, image, dropped)
    kept = sorted(made)
    return Result(kept, np.array([made[token] for token in kept]), margin)


def weighted(method: PruMergePlain | PruMergePlus, image: Image, tokens: list[int]) -> Array:
    total = sum(image.single[token] for token in tokens) if method.normalise else 1.0
    parts = (image.single[token] / (total or 1.0) * image.features[token] for token in tokens)
    return sum(parts, np.zeros_like(image.features[0]))


def sampled(method: PruMergePlus, scores: Array, count: int) -> list[int]:
    low, high = np.percentile(scores, [25, 75])
    first = top(scores, min(count, sum(score > high + 1.5 * (high - low) for score in scores)))
    rest = [token for token in range(len(scores)) if token not in first]
    left = count - len(first)
    if method.spatial == "midquantile":
        return sorted(first + [rest[math.floor(Fraction(2 * j + 1, 2) * len(rest) / left)] for j in range(left)])
    steps = range(0, len(scores), len(scores) // count) if left else ()
    return sorted(first + [token for token in steps if token not in first][:left])


def divprune(method: DivPrune, image: Image, budget: int) -> Result:
    length = len(image.features)
    apart = [
        [1 - cosine(a, b) if i != j else 9 for j, b in enumerate(image.features)] for i, a in enumerate(image.features)
    ]
    distances = [min(row) for row in apart]
    picked: list[int] = []
    margin = math.inf
    while len(picked) < budget:
        best = max(
            (token for token in range(length) if token not in picked), key=lambda token: (distances[token], -token)
        )
        runners = [distances[token] for token in range(length) if token not in [*picked, best]]
        # two nearest to each other are as far from their nearest, exactly; the lower one counts
        margin = min([margin, *(distances[best] - other for other in runners if distances[best] - other > 1e-12)])
        picked.append(best)
        distances = [min(apart[token][other] for other in picked) for token in range(length)]
    return Result(sorted(picked), None, margin)


def vispruner(method: VisPruner, image: Image, budget: int) -> Result:
    order = sorted(range(len(image.features)), key=lambda token: (-image.received[token], token))
    count = math.floor(Fraction(str(method.important)) * budget)
    first, order, left = order[:count], order[count:], budget - count
    step = max(method.step, -(-(len(order) - left) // method.rounds))
    margin = math.inf
    if not left:
        return Result(sorted(first))
    while len(order) > left:
        one, other = order[::2], order[1::2]
        alike = [max(cosine(image.features[a], image.features[b]) for b in other) for a in one]
        margin = min(margin, gap(alike))
        falling = [token for _, _, token in sorted((-value, place, one[place]) for place, value in enumerate(alike))]
        order = falling[min(step, len(order) - left, len(one)) :] + other
    return Result(sorted(first + order), None, margin)


def brute(method: Method, image: Image, budget: int) -> Result:
    if isinstance(method, VisionZip):
        return visionzip(method, image, budget)
    if isinstance(method, PruMergePlain | PruMergePlus):
        return prumerge(method, image, budget)
    return divprune(method, image, budget) if isinstance(method, DivPrune) else vispruner(method, image, budget)


def evenly(sizes: Sequence[int], total: int) -> list[int]:
    """One token after another goes to the pool that has fewest and still has room; the earlier of two."""
    counts = [0] * len(sizes)
    for _ in range(total):
        counts[min((number for number, size in enumerate(sizes) if counts[number] < size), key=counts.__getitem__)] += 1
    return counts


def seen(seed: int, length: int, dim: int = 5, scores: str = "any") -> Seen:
    """Random tokens; scores may be all alike, or fall on one token alone."""
    rng = torch.Generator().manual_seed(seed)
    received, single = torch.rand(2, length, generator=rng) / length
    if scores == "equal":
        received = single = torch.full((length,), 1 / length)
    elif scores == "one":
        received = single = torch.eye(length)[seed % length]
    keys = torch.randn(length, 2, 4, generator=rng)
    return Seen(torch.randn(length, dim, generator=rng), Tower(received, single, keys))


def picked(method: PruMergePlain | PruMergePlus, scores: torch.Tensor, count: int) -> list[int]:
    """What PruMerge chooses of one pool by its scores [n]."""
    return method.chosen(scores[None], [len(scores)], [count])[0].nonzero()[:, 0].tolist()


def double(shown: Seen) -> Image:
    tower = shown.shown
    return Image(*(part.double().numpy() for part in (shown.features, tower.received, tower.single, tower.keys)))


def by(received: Sequence[float], keys: object = None, features: object = None) -> Seen:
    """Tokens by hand: scores, one-headed keys, features."""
    length = len(received)
    made = torch.tensor(keys if keys is not None else np.eye(length), dtype=torch.float32)[:, None]
    scores = torch.tensor(received)
    shown = torch.arange(length, dtype=torch.float32)[:, None] if features is None else torch.tensor(features)
    return Seen(shown, Tower(scores, scores, made))
