"""Taking chosen entries out of a cache: all layers in one kernel, where Triton is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from effivlm.decoding.caches import KeptLayer
from effivlm.seams.columns import of_one_form


@dataclass(frozen=True)
class Source:
    """Keys and values [H_kv, N_l, D] of the layers of one prompt, which many caches are taken out of.

    `facts` say where the kernel finds each layer: addresses and how far heads lie apart; None where it does not serve all.
    """

    keys: Sequence[Tensor]
    values: Sequence[Tensor]
    facts: Sequence[tuple[int, int, int, int]] | None = field(init=False)

    def __post_init__(self) -> None:
        fits = of_one_form(self.keys) and of_one_form(self.values)
        pairs = zip(self.keys, self.values, strict=True)
        facts = [(key.data_ptr(), value.data_ptr(), key.stride(0), value.stride(0)) for key, value in pairs]
        object.__setattr__(self, "facts", facts if fits else None)

    def taken(self, chosen: Sequence[Tensor]) -> list[KeptLayer]:
        """The entries `chosen` [H_kv, K_l] of every layer."""
        if self.facts is None:
            pairs = [(rows_of(key, at), rows_of(value, at)) for key, value, at in self._layers(chosen)]
        else:
            from effivlm.kernels import gather as kernels

            pairs = kernels.gathered(self.keys[0], self.values[0], self.facts, chosen)
        return [KeptLayer(*pair, indices=at) for pair, at in zip(pairs, chosen, strict=True)]

    def _layers(self, chosen: Sequence[Tensor]) -> zip[tuple[Tensor, Tensor, Tensor]]:
        return zip(self.keys, self.values, chosen, strict=True)


def rows_of(entries: Tensor, at: Tensor) -> Tensor:
    """Entries [H, N, D] at places [H, K]: [H, K, D]."""
    return entries.gather(1, at[..., None].expand(-1, -1, entries.shape[-1]))
