"""Folding evicted cache entries into the kept ones. Everything in float32, tile by tile of evicted entries."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from effivlm.caches import KeptLayer
from effivlm.columns import WIDEST, has_triton, products
from effivlm.methods._base import LayerView
from effivlm.methods._choose import numbers_of

TILE = 2048
SMALLEST = 1e-12  # norm of a key that is divided by
MERGES = ("none", "averaged", "pivotal", "weighted")
SCOPES = ("all", "same_modality")


def merged(view: LayerView, chosen: Tensor, merge: str, scope: str) -> KeptLayer:
    """The entries `chosen` [H_kv, K] of a layer, each with what of the rest is most like it folded in.

    An evicted entry goes to the kept one whose key has the highest cosine with its own, its value to the same place. A kept
    x that gets n of them becomes the mean of x and them: as they are ("averaged"), each first averaged with x ("pivotal"), or
    each times its cosine ("weighted", still divided by n + 1). With `scope` "same_modality" text goes to text and visual to
    visual entries; what finds no partner is dropped. Kept entries that get nothing stay as they are, bit for bit.
    """
    heads, length, _ = view.keys.shape
    gone = _complement(chosen, length)
    keys, values = view.keys.float(), view.values.float()
    kept_keys, kept_values = _rows(keys, chosen), _rows(values, chosen)
    sorts = (view.visual[gone], view.visual[chosen]) if scope == "same_modality" else None
    place, cosine = _nearest(_rows(view.keys, gone), _rows(view.keys, chosen), sorts)
    found = cosine > -torch.inf
    counts = torch.zeros(heads, chosen.shape[1], device=keys.device).scatter_add(1, place, found.float())

    # one bag for each kept entry; bags are summed in one order on every device, which an atomic add is not
    bags = (place + torch.arange(heads, device=place.device)[:, None] * chosen.shape[1]).flatten()
    small = torch.int16 if heads * chosen.shape[1] <= torch.iinfo(torch.int16).max else torch.int32
    order = bags.to(small).argsort(stable=True)  # a GPU sorts short numbers in fewer passes
    sizes = torch.zeros_like(counts).scatter_add(1, place, torch.ones_like(cosine)).long().flatten()

    def fold(kept: Tensor, evicted: Tensor) -> Tensor:
        if merge == "pivotal":
            evicted = (evicted + _rows(kept, place)) / 2
        elif merge == "weighted":
            evicted = evicted * cosine.masked_fill(~found, 0)[..., None]
        if not len(order):
            return kept
        joining = (evicted * found[..., None]).flatten(0, 1)
        sums = embedding_bag(order, joining, sizes.cumsum(0) - sizes, mode="sum")
        return (kept + sums.view_as(kept)) / (counts[..., None] + 1)

    return KeptLayer(
        fold(kept_keys, _rows(keys, gone)).to(view.keys.dtype),
        fold(kept_values, _rows(values, gone)).to(view.values.dtype),
        indices=chosen,
    )


def _complement(chosen: Tensor, length: int) -> Tensor:
    """Entries not in `chosen` [H, K], ascending [H, N - K]."""
    there = torch.zeros(len(chosen), length, dtype=torch.bool, device=chosen.device).scatter(1, chosen, True)
    return numbers_of(~there, length - chosen.shape[1])


def _rows(entries: Tensor, at: Tensor) -> Tensor:
    """Entries [H, N, D] at places [H, K]: [H, K, D]."""
    return entries.gather(1, at[..., None].expand(-1, -1, entries.shape[-1]))


def _nearest(evicted: Tensor, kept: Tensor, sorts: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
    """For every evicted key [H, E, D] the place of the most similar kept one [H, K, D] and their cosine, both [H, E].

    With `sorts` ([H, E] and [H, K]) only kept ones of the same sort count; the cosine is -inf where there is none.
    """
    own, theirs = ((1 / part.float().norm(dim=-1).clamp(min=SMALLEST)) for part in (evicted, kept))
    if evicted.is_cuda and evicted.shape[-1] <= WIDEST and evicted.shape[1] and has_triton():
        from effivlm.methods import _merge_triton

        place, product = _merge_triton.nearest(evicted, kept, theirs, sorts)
        return place, product * own
    places, cosines = [], []
    for start in range(0, evicted.shape[1], TILE):
        tile = slice(start, start + TILE)
        similar = products(evicted[:, tile], kept) * theirs[:, None]
        if sorts is not None:
            similar = similar.masked_fill(sorts[0][:, tile, None] != sorts[1][:, None], -torch.inf)
        cosine, place = similar.max(-1)
        places.append(place)
        cosines.append(cosine * own[:, tile])
    if not places:
        nothing = own.new_zeros(evicted.shape[:2])
        return nothing.long(), nothing
    return torch.cat(places, 1), torch.cat(cosines, 1)
