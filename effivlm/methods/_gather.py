"""Taking chosen entries out of a cache: all layers in one kernel, where Triton is there."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from effivlm.caches import KeptLayer
from effivlm.columns import has_triton


def gathered(keys: Sequence[Tensor], values: Sequence[Tensor], chosen: Sequence[Tensor]) -> list[KeptLayer]:
    """The entries `chosen` [H_kv, K_l] of every layer, whose keys and values are [H_kv, N_l, D]."""
    if _together(keys) and _together(values):
        from effivlm.methods import _gather_triton

        pairs = _gather_triton.gathered(keys, values, chosen)
    else:
        pairs = [(_rows(key, at), _rows(value, at)) for key, value, at in zip(keys, values, chosen, strict=True)]
    return [KeptLayer(*pair, indices=at) for pair, at in zip(pairs, chosen, strict=True)]


def _rows(entries: Tensor, at: Tensor) -> Tensor:
    return entries.gather(1, at[..., None].expand(-1, -1, entries.shape[-1]))


def _together(layers: Sequence[Tensor]) -> bool:
    """Whether one kernel reads all layers: they lie on one GPU, in one type, and in memory alike."""
    first = layers[0]

    def form(one: Tensor) -> tuple[object, ...]:
        return one.device, one.dtype, one.shape[0], one.shape[2], one.stride(1), one.stride(2)

    return first.is_cuda and has_triton() and first.stride(2) == 1 and all(form(one) == form(first) for one in layers)
