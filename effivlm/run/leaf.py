"""A prompt as one method leaves it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from effivlm.decoding.caches import KeptLayer, kv_bytes
from effivlm.decoding.eager import Start
from effivlm.run.faults import Ill


@dataclass(frozen=True, slots=True)
class Leaf:
    """A prompt as one method leaves it. `kept` of `of` is counted on tensors; `length` is the dense prompt's.

    `shares` are (kept, of) of every method of a composition, of a method alone its own; `wanted` what those should keep whose
    budget is a number of tokens (0: of the others), empty where none is. `logits` [vocab] are those of the first token, which is
    `token`, once it was read.
    """

    cache: Sequence[KeptLayer]
    token: int | None
    position: int
    length: int
    visual_tokens: int
    kept: int
    of: int
    dense_bytes: int
    shares: tuple[tuple[int, int], ...] = ()
    measured: tuple[tuple[float, ...], int] = ((), 0)
    prompt: tuple[int, ...] = ()
    heads: tuple[tuple[int, ...], ...] = ()
    wanted: tuple[int, ...] = ()
    logits: Tensor | None = None

    def begun(self, token: int) -> Leaf:
        """With the first token; Ill where nothing is left that an answer could begin from."""
        if not any(layer.kept for layer in self.cache):
            raise Ill("no entry of the prompt stays in any layer")
        return replace(self, token=token)

    @property
    def start(self) -> Start:
        """Where decoding begins; AssertionError before the first token was read."""
        assert self.token is not None
        return Start(self.cache, self.token, self.position, self.prompt)

    def without_cache(self) -> Leaf:
        """What is counted on the tensors, without them: entries of each layer, and of its KV heads if any differ, and bytes."""
        heads: tuple[tuple[int, ...], ...] = ()
        if any(layer.lengths for layer in self.cache):
            heads = tuple(layer.lengths or (layer.keys.shape[1],) * len(layer.keys) for layer in self.cache)
        counts = tuple(layer.kept for layer in self.cache)
        return replace(self, cache=(), measured=(counts, kv_bytes(self.cache)), heads=heads, logits=None)
