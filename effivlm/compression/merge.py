"""Folding evicted cache entries into the kept ones. Everything in float32, tile by tile of evicted entries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from effivlm.compression.base import LayerView
from effivlm.compression.choose import numbers_of
from effivlm.compression.gather import rows_of
from effivlm.decoding.caches import KeptLayer
from effivlm.kernels.placed import has_triton
from effivlm.seams.columns import WIDEST, products

TILE = 2048
SMALLEST = 1e-12  # norm of a key that is divided by
MERGES = ("none", "averaged", "pivotal", "weighted")
SCOPES = ("all", "same_modality")


@dataclass(frozen=True, slots=True)
class Partners:
    """Whom the evicted entries of one layer join.

    gone [H, E]: their numbers, ascending; place, cosine [H, E]: of the kept one with the most similar key, and how similar it
    is (-inf: there is none). order [H * E] lists places in `gone`, all heads together, partner by partner; those of a kept one
    end at ends [H, K], and sizes [H, K] says how many they are, those without a partner counted with the first.
    """

    gone: Tensor
    place: Tensor
    cosine: Tensor
    order: Tensor
    ends: Tensor
    sizes: Tensor


def partners(views: Sequence[LayerView], chosen: Sequence[Tensor], scope: str) -> list[Partners]:
    """The partners in every layer, where its entries `chosen` [H, K] stay; layers and choices of one shape each.

    With `scope` "same_modality" text goes to text and visual to visual entries.
    """
    heads, length, _ = views[0].keys.shape
    kept = torch.stack(list(chosen))
    gone = _complement(kept, length)
    place, cosine = torch.zeros_like(gone), torch.full_like(gone, -torch.inf, dtype=torch.float32)
    for number, view in enumerate(views):
        _nearest(view, gone[number], kept[number], scope, place[number], cosine[number])
    # one bag for each kept entry; bags are summed in one order on every device, which an atomic add is not
    bags = place.flatten(1, 2) + _steps(heads, gone, kept.shape[2])[None]
    each = heads * kept.shape[2]
    whole = bags + (torch.arange(len(views), device=bags.device) * each)[:, None]
    order = whole.flatten().to(_smallest(each * len(views))).argsort(stable=True).view_as(bags) % bags.shape[1]
    sizes = torch.zeros_like(kept).scatter_add(2, place, torch.ones_like(place))
    ends = sizes.flatten(1, 2).cumsum(1).view_as(sizes)
    return [Partners(*one) for one in zip(gone, place, cosine, order, ends, sizes, strict=True)]


def merged(view: LayerView, chosen: Tensor, merge: str, there: Partners) -> KeptLayer:
    """The entries `chosen` [H_kv, K] of a layer, each with what of the rest is most like it folded in.

    An evicted entry goes to the kept one whose key has the highest cosine with its own, its value to the same place. A kept
    x that gets n of them becomes the mean of x and them: as they are ("averaged"), each first averaged with x ("pivotal"), or
    each times its cosine ("weighted", still divided by n + 1). What found no partner is dropped. Kept entries that get nothing
    stay as they are, bit for bit.
    """
    keys, values = view.keys.contiguous(), view.values.contiguous()
    if _fused(keys):
        from effivlm.kernels import merge as kernels

        facts = (there.gone, there.cosine, there.order, there.ends, there.sizes)
        return KeptLayer(*kernels.folded(keys, values, chosen.contiguous(), *facts, merge), indices=chosen)
    found = there.cosine > -torch.inf
    counts = torch.zeros_like(chosen, dtype=torch.float32).scatter_add(1, there.place, found.float())

    def fold(entries: Tensor) -> Tensor:
        kept, evicted = rows_of(entries.float(), chosen), rows_of(entries.float(), there.gone)
        if merge == "pivotal":
            evicted = (evicted + rows_of(kept, there.place)) / 2
        elif merge == "weighted":
            evicted = evicted * there.cosine.masked_fill(~found, 0)[..., None]
        if not len(there.order):
            return kept.to(entries.dtype)
        joining = (evicted * found[..., None]).flatten(0, 1)
        sums = embedding_bag(there.order, joining, (there.ends - there.sizes).flatten(), mode="sum")
        return ((kept + sums.view_as(kept)) / (counts[..., None] + 1)).to(entries.dtype)

    return KeptLayer(fold(keys), fold(values), indices=chosen)


def inverse_norms(view: LayerView) -> Tensor:
    """1 / the norms of a layer's keys [H_kv, N], in float32."""

    def norms() -> Tensor:
        lengths: Tensor = view.keys.float().norm(dim=-1)
        return lengths.clamp(min=SMALLEST).reciprocal()

    return view.once("inverse norms", norms)


def _fused(keys: Tensor) -> bool:
    """Whether kernels do the work."""
    return keys.is_cuda and keys.shape[-1] <= WIDEST and has_triton()


def _complement(chosen: Tensor, length: int) -> Tensor:
    """Entries not in `chosen` [.., K], ascending [.., N - K]."""
    there = torch.zeros(*chosen.shape[:-1], length, dtype=torch.bool, device=chosen.device).scatter(-1, chosen, True)
    return numbers_of(~there, length - chosen.shape[-1]).contiguous()


def _steps(heads: int, gone: Tensor, kept: int) -> Tensor:
    """The first bag of the head of every evicted entry [H * E]."""
    return (torch.arange(heads, device=gone.device) * kept)[:, None].expand(-1, gone.shape[-1]).flatten()


def _smallest(count: int) -> torch.dtype:
    """A GPU sorts short numbers in fewer passes."""
    return next(kind for kind in (torch.int16, torch.int32, torch.int64) if count <= torch.iinfo(kind).max)


def _nearest(view: LayerView, gone: Tensor, chosen: Tensor, scope: str, place: Tensor, cosine: Tensor) -> None:
    """Write into `place` and `cosine` [H, E] which kept entry [H, K] every evicted one [H, E] is most like; of equal ones the
    first. Where there is none they stay as they were."""
    inverse, apart = inverse_norms(view), scope == "same_modality"
    if _fused(view.keys):
        from effivlm.kernels import merge as kernels

        keys, visual = view.keys.contiguous(), view.visual if apart else None
        kernels.nearest(keys, inverse, visual, gone, chosen, place, cosine)
        return
    kept, own, theirs = rows_of(view.keys, chosen), inverse.gather(1, gone), inverse.gather(1, chosen)
    for start in range(0, gone.shape[1], TILE):
        tile = slice(start, start + TILE)
        similar = products(rows_of(view.keys, gone[:, tile]), kept) * theirs[:, None]
        if apart:
            similar = similar.masked_fill(
                view.visual[gone[:, tile]][..., None] != view.visual[chosen][:, None], -torch.inf
            )
        best, at = similar.max(-1)
        found = best > -torch.inf
        cosine[:, tile] = torch.where(found, best * own[:, tile], -torch.inf)
        place[:, tile] = torch.where(found, at, 0)
