"""The first layers of a prefill: prompts that are pruned inside the decoder have them in common with the whole one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn

from effivlm.seams.hooked import hooked


@dataclass(frozen=True, slots=True)
class Head:
    """What a whole prompt's prefill came to before decoder layer `at`: what enters it [1, N, d], the queries [1, H_q, N, D] of
    the layer before it, and the keys and values [1, H_kv, N, D] of all layers before it.
    """

    at: int
    hidden: Tensor
    query: Tensor
    keys: Sequence[Tensor]
    values: Sequence[Tensor]

    @contextmanager
    def resumed(self, layers: Sequence[nn.Module], cached: Callable[[Tensor, Tensor, int], object]) -> Iterator[None]:
        """In one prefill of the same prompt, let the layers before `at` pass on what they made of it, and compute nothing.

        `cached` gets the keys, the values and the number of each of them.
        """

        def known(number: int, hidden: Tensor, *_: Any, **__: Any) -> Tensor:
            cached(self.keys[number], self.values[number], number)
            return self.hidden if number == self.at - 1 else hidden

        before = [vars(layer).get("forward") for layer in layers[: self.at]]
        for number, layer in enumerate(layers[: self.at]):
            layer.forward = partial(known, number)
        try:
            yield
        finally:
            for layer, own in zip(layers, before, strict=False):
                if own is None:
                    del layer.forward
                else:  # somebody else's, such as the one that moves a layer's weights in
                    layer.forward = own


@dataclass
class Heads:
    """Notes the heads before some decoder layers, none of them the first, during one prefill of a whole prompt."""

    at: Collection[int]
    hidden: dict[int, Tensor] = field(default_factory=dict)
    queries: dict[int, Tensor] = field(default_factory=dict)

    def look(self, at: int, query: Tensor, key: Tensor, value: Tensor, lse: Tensor | None) -> None:
        """To be called with what the attention of layer `at` - 1 sees."""
        self.queries[at] = query

    @contextmanager
    def noted(self, layers: Sequence[nn.Module]) -> Iterator[None]:
        def enter(at: int, layer: nn.Module, args: tuple[Any, ...]) -> None:
            self.hidden[at] = args[0]

        with hooked(layers[at].register_forward_pre_hook(partial(enter, at)) for at in self.at):
            yield

    def of(self, keys: Sequence[Tensor], values: Sequence[Tensor]) -> dict[int, Head]:
        """The heads by layer, once the prefill is through that left these keys and values."""
        return {at: Head(at, hidden, self.queries[at], keys[:at], values[:at]) for at, hidden in self.hidden.items()}
